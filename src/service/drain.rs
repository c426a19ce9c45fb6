//! Whether the worker of this process takes no more work, as an operator has asked.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// Shared by the worker, which learns it from the store, and by those who tell of it. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    drained: watch::Sender<bool>,
    orders: Notify,
}

impl Drain {
    /// Whether that is new.
    pub fn set(&self, drained: bool) -> bool {
        self.0.drained.send_if_modified(|now| std::mem::replace(now, drained) != drained)
    }

    pub fn is_set(&self) -> bool {
        *self.0.drained.borrow()
    }

    /// Returns when the worker is drained.
    pub async fn until_set(&self) {
        // The sender is this handle's own, so that it cannot be gone.
        let _ = self.0.drained.subscribe().wait_for(|drained| *drained).await;
    }

    /// Has the worker look for orders at once.
    pub fn announce(&self) {
        self.0.orders.notify_one();
    }

    /// Returns when there may be new orders.
    pub async fn announced(&self) {
        self.0.orders.notified().await;
    }
}
