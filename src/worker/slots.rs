//! Limits how many generations a worker claims.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Slots for `most` generations that compute. Generations that wait for their model or for memory take no slot, so a
/// worker claims up to 2 · `most` generations. Clones share the same slots.
#[derive(Clone, Debug)]
pub struct Slots {
    most: usize,
    computing: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    pair: Arc<Semaphore>,
}

/// Counts a generation as waiting for its model or for memory until this value is dropped.
#[derive(Debug)]
pub(super) struct WaitingCount(Arc<AtomicUsize>);

impl Slots {
    /// At most `most` generations compute at the same time.
    pub fn new(most: usize) -> Slots {
        Slots {
            most,
            computing: Arc::new(Semaphore::new(most)),
            waiting: Arc::default(),
            pair: Arc::new(Semaphore::new(1)),
        }
    }

    /// How many more generations may be claimed when `in_hand` are claimed already.
    pub(super) fn room(&self, in_hand: usize) -> usize {
        let computing = in_hand.saturating_sub(self.waiting.load(Ordering::Relaxed));
        self.most.saturating_sub(computing).min((2 * self.most).saturating_sub(in_hand))
    }

    /// Counts a generation as waiting for its model or for memory until the result is dropped.
    pub(super) fn wait(&self) -> WaitingCount {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        WaitingCount(self.waiting.clone())
    }

    /// Waits until no other generation holds one model while it waits for a second one, so that no two generations wait
    /// for each other. `None` only if the worker is gone.
    pub(super) async fn pair(&self) -> Option<OwnedSemaphorePermit> {
        self.pair.clone().acquire_owned().await.ok()
    }

    /// Waits for a slot to compute. `None` only if the worker is gone.
    pub(super) async fn compute(&self) -> Option<OwnedSemaphorePermit> {
        self.computing.clone().acquire_owned().await.ok()
    }
}

impl Drop for WaitingCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
