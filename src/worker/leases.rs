//! The leases that a worker holds, and whether it may still trust them by its own clock.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{generation::GenerationId, ledger::Lease};

/// The worker's leases. A worker that has not renewed a lease for some time stops the run. It does so before the lease
/// expires, because then another worker can claim the generation (Gray and Cheriton 1989). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leases {
    held: Arc<Mutex<HashMap<GenerationId, Held>>>,
    /// How long a lease is trusted without renewal, shorter than the lease; `None` if no other process can claim the
    /// generation.
    trust: Option<Duration>,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// When the last successful claim or renewal was sent. The database began the lease after this time, so the lease
    /// is valid for at least one lease time after this time.
    requested_at: Instant,
}

impl Leases {
    pub fn new(trust: Option<Duration>) -> Leases {
        Leases { held: Arc::default(), trust }
    }

    /// Adds a lease that was requested at `asked_at`.
    pub(super) fn hold(&self, lease: Lease, asked_at: Instant) {
        self.held.lock().insert(lease.id(), Held { lease, requested_at: asked_at });
    }

    /// Notes a renewal that was requested at `asked_at`.
    pub(super) fn renew(&self, id: GenerationId, fence: i64, asked_at: Instant) {
        if let Some(held) = self.held.lock().get_mut(&id).filter(|held| held.lease.fence() == fence) {
            held.requested_at = asked_at;
        }
    }

    /// Removes a lease. Returns whether it was held.
    pub(super) fn release(&self, lease: &Lease) -> bool {
        let mut held = self.held.lock();
        let is_held = held.get(&lease.id()).is_some_and(|held| held.lease.fence() == lease.fence());
        if is_held {
            held.remove(&lease.id());
        }
        is_held
    }

    pub(super) fn all(&self) -> Vec<Lease> {
        self.held.lock().values().map(|held| held.lease.clone()).collect()
    }

    /// The leases that can no longer be trusted.
    pub(super) fn lapsed(&self) -> Vec<Lease> {
        let Some(trust) = self.trust else { return Vec::new() };
        let held = self.held.lock();
        held.values().filter(|held| held.requested_at.elapsed() >= trust).map(|held| held.lease.clone()).collect()
    }

    /// Whether the worker may still act under this lease.
    pub(super) fn allows(&self, lease: &Lease) -> bool {
        let held = self.held.lock();
        let Some(held) = held.get(&lease.id()).filter(|held| held.lease.fence() == lease.fence()) else { return false };
        self.trust.is_none_or(|trust| held.requested_at.elapsed() < trust)
    }
}
