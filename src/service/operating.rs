//! What the operator can look at and do.

use super::{Access, Service, ServiceError, View};
use crate::{
    generation::GenerationId,
    ledger::{Hint, StoreError, WorkerRecord},
};

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
    pub fn unstarted(&self) -> Vec<String> {
        let catalogue = &self.0.catalogue;
        let awaited = catalogue.awaited().into_iter().filter(|_| self.0.computes);
        awaited.map(|name| format!("model {name}: {}", catalogue.state(&name).0)).collect()
    }

    /// What keeps the server from taking work, for `/readyz`; empty when it is ready.
    pub async fn unready_reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.0.draining.is_cancelled() {
            reasons.push("draining".to_owned());
        }
        if self.0.drain.is_set() {
            reasons.push("worker_drained".to_owned());
        }
        match self.bounded(self.0.store.ping()).await {
            Ok(()) => {}
            Err(StoreError::SchemaTooOld { .. }) => reasons.push("schema_too_old".to_owned()),
            Err(error) => reasons.push(format!("store: {error}")),
        }
        // Whether they are in memory later on is nobody's concern.
        reasons.extend(self.unstarted());
        reasons
    }
}
