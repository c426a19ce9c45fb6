//! Whether an operator has drained the worker of this process.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// Whether the worker is drained. The worker reads the state from the store and shares it with the service. Cloning
/// gives another handle of the same state.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    drained: watch::Sender<bool>,
    orders: Notify,
}

impl Drain {
    /// Sets the state; returns whether it changed.
    pub fn set(&self, drained: bool) -> bool {
        self.0.drained.send_if_modified(|now| std::mem::replace(now, drained) != drained)
    }

    pub fn is_set(&self) -> bool {
        *self.0.drained.borrow()
    }

    /// Returns when the worker is drained.
    pub async fn until_set(&self) {
        // This handle owns the sender, so waiting cannot fail.
        let _ = self.0.drained.subscribe().wait_for(|drained| *drained).await;
    }

    /// Makes the worker check for a new drained state at once.
    pub fn announce(&self) {
        self.0.orders.notify_one();
    }

    /// Returns when there may be a new drained state.
    pub async fn announced(&self) {
        self.0.orders.notified().await;
    }
}
