//! What goes into the queue and comes out of it.

use std::time::Duration;

use super::jittered;
use crate::generation::{GenerationId, Job, Record};

/// SHA-256 of a request as its client has written it, before any default is filled in.
pub type Fingerprint = [u8; 32];

/// A request to be made durable.
#[derive(Clone, Debug)]
pub struct Acceptance<'a> {
    /// A new one, or the client's own.
    pub id: GenerationId,
    pub tenant: &'a str,
    pub job: &'a Job,
    pub fingerprint: Fingerprint,
    /// The client's idempotency key, and how long it stands for this generation.
    pub key: Option<(&'a str, Duration)>,
    /// 10⁹ multiplications of all its networks' calls: what the tenant's share is charged with.
    pub cost: f64,
    /// Most generations that may wait, of all tenants together.
    pub max_queued: usize,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Accepted {
    New(Record),
    /// The same request was accepted before.
    Again(Record),
}

/// Who claims.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// A name that no other process has or had.
    pub worker: String,
    /// How long a claim and a renewal hold.
    pub lease: Duration,
    /// The models that it can run.
    pub models: Vec<String>,
}

/// A lease that was prolonged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    pub id: GenerationId,
    pub fence: i64,
    pub cancel_requested: bool,
}

/// How running generations are taken back.
#[derive(Clone, Copy, Debug)]
pub struct Reaping {
    /// All of them, as the only process of a store may do at its start; else those whose lease has ended.
    pub all: bool,
    /// With so many crashes a generation is given up.
    pub max_crashes: u32,
    /// Delay after the first crash; it doubles with each, up to a minute. [`Reaping::all`] waits for nothing.
    pub backoff: Duration,
}

/// What was taken back.
#[derive(Clone, Debug, Default)]
pub struct Reaped {
    pub queued: Vec<GenerationId>,
    /// Failed or canceled.
    pub ended: Vec<Record>,
}

/// Work in units of [`Acceptance::cost`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Workload {
    /// What has to be done before a generation that is accepted now can begin; 0 while a worker has a free slot.
    ///
    /// With s slots of all workers and n generations that wait and run, k = n + 1 − s of them have to end first. The cheapest do:
    /// those at work share the workers, so that an expensive one holds nobody up. When the k-th of cost r has ended, the others
    /// at work, s − 1 of them, have each received r as well. What has been done already is not subtracted.
    pub cost: f64,
    /// Units a second of all workers together that have measured it; 0 where none has.
    pub speed: f64,
}

/// Where a queued generation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// How many are before it.
    pub position: usize,
    /// Their work, in units of [`Acceptance::cost`].
    pub cost: f64,
}

impl Reaping {
    /// Until a generation is claimed again after so many crashes: within a quarter of it, so that what was lost together does
    /// not come back together.
    pub fn delay(&self, crashes: u32) -> Duration {
        const LONGEST: Duration = Duration::from_secs(60);
        let delay = self.backoff.saturating_mul(1 << crashes.saturating_sub(1).min(16)).min(LONGEST);
        delay + jittered(delay / 4)
    }
}
