//! How many generations a worker has in hand.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for so many generations that compute, and for as many more that wait for their model, so that these keep none of
/// those out. Cloning gives another handle of the same room.
#[derive(Clone, Debug)]
pub struct Slots {
    most: usize,
    computing: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    pair: Arc<Semaphore>,
}

/// A generation that waits for its model.
#[derive(Debug)]
pub(super) struct Waiting(Arc<AtomicUsize>);

impl Slots {
    /// `most` generations compute at the same time.
    pub fn new(most: usize) -> Slots {
        Slots {
            most,
            computing: Arc::new(Semaphore::new(most)),
            waiting: Arc::default(),
            pair: Arc::new(Semaphore::new(1)),
        }
    }

    /// How many generations may be claimed beside those in hand.
    pub(super) fn room(&self, in_hand: usize) -> usize {
        let computing = in_hand.saturating_sub(self.waiting.load(Ordering::Relaxed));
        self.most.saturating_sub(computing).min((2 * self.most).saturating_sub(in_hand))
    }

    /// A generation begins to wait for its model; it ends to when the guard is dropped.
    pub(super) fn wait(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self.waiting.clone())
    }

    /// The turn to take two models; `None` only if the worker is gone.
    pub(super) async fn pair(&self) -> Option<OwnedSemaphorePermit> {
        self.pair.clone().acquire_owned().await.ok()
    }

    /// A place in the engine, as soon as there is one; `None` only if the worker is gone.
    pub(super) async fn compute(&self) -> Option<OwnedSemaphorePermit> {
        self.computing.clone().acquire_owned().await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
