//! The Rust types with which generations are accepted, claimed and taken back.

use std::time::Duration;

use super::jittered;
use crate::generation::{GenerationId, Job, Priority, Record};

/// SHA-256 of a request as its client has written it, before any default is filled in.
pub type Fingerprint = [u8; 32];

/// A request to be stored.
#[derive(Clone, Debug)]
pub struct Acceptance<'a> {
    /// A new id, or the id that the client has chosen.
    pub id: GenerationId,
    pub tenant: &'a str,
    /// The public part of the API key; `None` for a request without a key.
    pub api_key: Option<&'a str>,
    pub job: &'a Job,
    pub fingerprint: Fingerprint,
    /// The client's idempotency key, and how long it is kept.
    pub key: Option<(&'a str, Duration)>,
    /// Work of all network calls in 10⁹ multiplications, which is charged to the tenant's share of the queue.
    pub cost: f64,
    /// The speed, in units of `cost` per second, that is assumed until a first generation has succeeded. It serves to
    /// estimate how many seconds this generation takes.
    pub assumed_speed: f64,
    /// Maximum number of queued generations of all tenants together.
    pub max_queued: usize,
}

/// The outcome of [`Accepts::accept`](super::Accepts::accept).
#[derive(Clone, Debug)]
pub enum Accepted {
    New(Record),
    /// The same request was accepted before.
    Again(Record),
}

/// A worker that claims.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// A name that no other process has or had.
    pub worker: String,
    /// How long a claim or a renewal lasts.
    pub lease: Duration,
    /// The models that the worker can run.
    pub models: Vec<String>,
    /// A generation that has crashed at least this often (1 or more) runs alone; see [`Reaping::alone_from`].
    pub alone_from: u32,
}

/// A lease that was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    pub id: GenerationId,
    pub fence: i64,
    pub cancel_requested: bool,
}

/// Which running generations are taken back, and how.
#[derive(Clone, Copy, Debug)]
pub struct Reaping {
    /// All running generations, when a store's only process starts; otherwise only those with an expired lease.
    pub all: bool,
    /// Number of crashes at which a generation is given up.
    pub max_crashes: u32,
    /// Delay after the first crash; each further crash doubles it, up to a minute. Unused with [`Reaping::all`].
    pub backoff: Duration,
}

/// The generations that were taken back.
#[derive(Clone, Debug, Default)]
pub struct Reaped {
    pub queued: Vec<GenerationId>,
    /// Failed or canceled generations.
    pub ended: Vec<Record>,
}

/// A generation that would be accepted now: the values that decide its place in the queue.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    pub tenant: &'a str,
    pub priority: Priority,
    /// See [`Acceptance::cost`].
    pub cost: f64,
}

/// The workers, and what they have done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crew<'a> {
    /// Only workers that have sent a heartbeat within this time count.
    pub lately: Duration,
    /// How many generations each worker runs at a time.
    pub slots: usize,
    /// The finished share, 0 to 1, of running generations, as far as it is known.
    pub done: &'a [(GenerationId, f64)],
}

/// Work in units of [`Acceptance::cost`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Workload {
    /// Work that must be done before a generation can begin; 0 while a worker has a free slot.
    ///
    /// Let n be the number of generations that run or are ahead in the queue, and s the number of slots of all workers
    /// together. Then k = n + 1 − s generations must end first (none if k ≤ 0). Running generations share the workers
    /// equally, so the k with the least work left end first. Let r be the work that the one of these k generations that
    /// ends last has left now. When that generation ends, each of the s − 1 generations that still run has also
    /// received the work r. The estimate is the sum of the work that the k generations have left, plus (s − 1) · r.
    pub cost: f64,
    /// Units per second of all workers that have measured their speed; 0 if none has.
    pub speed: f64,
}

/// The position of a queued generation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueuePosition {
    /// Number of queued generations before this one.
    pub position: usize,
    /// See [`Workload::cost`].
    pub cost: f64,
}

impl Reaping {
    /// The number of crashes from which a generation runs exclusively, if it is given up after `max_crashes`. Most
    /// crashes are not caused by a generation, so with `max_crashes` ≥ 3, a generation may run beside others after its
    /// first crash. With `max_crashes` ≥ 2, its last try is exclusive, so crashes by other generations do not end it.
    pub fn alone_from(max_crashes: u32) -> u32 {
        max_crashes.saturating_sub(1).clamp(1, 2)
    }

    /// Delay until a generation with this many crashes is claimed again, at most 75 s: an eighth to a quarter is added
    /// at random, so that generations that were lost together do not come back together.
    pub fn delay(&self, crashes: u32) -> Duration {
        const LONGEST: Duration = Duration::from_secs(60);
        let delay = self.backoff.saturating_mul(1 << crashes.saturating_sub(1).min(16)).min(LONGEST);
        delay + jittered(delay / 4)
    }
}
