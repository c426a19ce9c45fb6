//! What the operator can look at and do.

use super::{Access, Service, ServiceError, View};
use crate::{
    generation::GenerationId,
    ledger::{Hint, StoreError, WorkerRecord},
};

/// Why the server takes no work at the moment, in the order in which one tells more than the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unready {
    /// The server stops.
    #[error("draining")]
    Draining,
    /// An operator has drained the worker of this process.
    #[error("worker_drained")]
    Drained,
    #[error("schema_too_old")]
    SchemaTooOld,
    #[error("store: {0}")]
    Store(String),
    /// A model that is to be loaded at the start has not been.
    #[error("model {name}: {state}")]
    Model { name: String, state: &'static str },
}

impl Service {
    /// Queues a generation again that was given up after too many crashes.
    ///
    /// # Errors
    /// [`ServiceError::NotDead`] where it was not given up.
    pub async fn revive(&self, id: GenerationId) -> Result<View, ServiceError> {
        match self.ask(self.0.store.revive(id)).await? {
            Some(record) => {
                self.0.wake.notify_one();
                self.0.outbox.tell(Hint::Queued);
                self.0.outbox.tell(Hint::Changed(id));
                self.view(record).await
            }
            None => {
                self.get(Access::Full, id).await?;
                Err(ServiceError::NotDead)
            }
        }
    }

    /// The workers that were heard of within the last hour.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, ServiceError> {
        self.ask(self.0.store.workers()).await
    }

    /// Asks a worker to take no more work, or to take work again. `None`: there is none of that name.
    pub async fn drain_worker(&self, name: &str, drain: bool) -> Result<Option<WorkerRecord>, ServiceError> {
        if !self.ask(self.0.store.drain_worker(name, drain)).await? {
            return Ok(None);
        }
        self.0.drain.announce();
        self.0.outbox.tell(Hint::Orders);
        Ok(self.workers().await?.into_iter().find(|worker| worker.beat.worker == name))
    }

    /// Whether the only worker is drained: nothing is begun.
    pub fn is_drained(&self) -> bool {
        self.0.drain.is_set() && !self.0.store.is_shared()
    }

    /// The models that are to be loaded at the start and have not been yet, with their states.
    pub fn unstarted(&self) -> Vec<Unready> {
        let catalogue = &self.0.catalogue;
        let awaited = catalogue.awaited().into_iter().filter(|_| self.0.computes);
        awaited.map(|name| Unready::Model { state: catalogue.state(&name).0, name }).collect()
    }

    /// What keeps the server from taking work, for `/readyz`; empty when it is ready.
    pub async fn unready_reasons(&self) -> Vec<Unready> {
        let mut reasons = Vec::new();
        if self.0.draining.is_cancelled() {
            reasons.push(Unready::Draining);
        }
        if self.0.drain.is_set() {
            reasons.push(Unready::Drained);
        }
        match self.bounded(self.0.store.ping()).await {
            Ok(()) => {}
            Err(StoreError::SchemaTooOld { .. }) => reasons.push(Unready::SchemaTooOld),
            Err(error) => reasons.push(Unready::Store(error.to_string())),
        }
        // Whether they are in memory later on is nobody's concern.
        reasons.extend(self.unstarted());
        reasons
    }
}
