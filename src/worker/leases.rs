//! The leases that a worker holds, by its own clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{generation::GenerationId, ledger::Lease};

/// Which generations are this worker's, and since when that is certain. A worker that could not renew a lease for a while
/// stops by itself before others have the generation (Gray and Cheriton 1989). A cheap handle.
#[derive(Clone, Debug)]
pub struct Leases {
    held: Arc<Mutex<HashMap<GenerationId, Held>>>,
    /// How long a lease is relied upon without a renewal; `None` where nobody else can have it.
    trust: Option<Duration>,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// Before the last claim or renewal was sent: the lease runs from a later moment.
    certain: Instant,
}

impl Leases {
    pub fn new(trust: Option<Duration>) -> Leases {
        Leases { held: Arc::default(), trust }
    }

    pub(super) fn hold(&self, lease: Lease, asked_at: Instant) {
        self.lock().insert(lease.id(), Held { lease, certain: asked_at });
    }

    pub(super) fn renew(&self, id: GenerationId, fence: i64, asked_at: Instant) {
        if let Some(held) = self.lock().get_mut(&id).filter(|held| held.lease.fence() == fence) {
            held.certain = asked_at;
        }
    }

    /// Ends the hold; whether there was one.
    pub(super) fn release(&self, lease: &Lease) -> bool {
        let mut held = self.lock();
        let is_held = held.get(&lease.id()).is_some_and(|held| held.lease.fence() == lease.fence());
        if is_held {
            held.remove(&lease.id());
        }
        is_held
    }

    pub(super) fn all(&self) -> Vec<Lease> {
        self.lock().values().map(|held| held.lease.clone()).collect()
    }

    /// Those that cannot be relied upon any more.
    pub(super) fn lapsed(&self) -> Vec<Lease> {
        let Some(trust) = self.trust else { return Vec::new() };
        let held = self.lock();
        held.values().filter(|held| held.certain.elapsed() >= trust).map(|held| held.lease.clone()).collect()
    }

    /// Whether what this lease allows may still be done.
    pub(super) fn allows(&self, lease: &Lease) -> bool {
        let held = self.lock();
        let Some(held) = held.get(&lease.id()).filter(|held| held.lease.fence() == lease.fence()) else { return false };
        self.trust.is_none_or(|trust| held.certain.elapsed() < trust)
    }

    /// The map is whole whenever the lock is free.
    fn lock(&self) -> MutexGuard<'_, HashMap<GenerationId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
