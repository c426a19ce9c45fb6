//! Operations of the operator: workers, readiness, and generations that were given up.

use super::{Access, Service, ServiceError, View};
use crate::{
    generation::GenerationId,
    ledger::{Hint, StoreError, WorkerRecord},
};

/// Why the server does not take work. The variants are ordered by importance: the first one that applies decides the
/// error code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unready {
    /// The server stops.
    #[error("draining")]
    Draining,
    /// All devices of this process have failed, so the process stops.
    #[error("devices_failed")]
    DevicesFailed,
    /// An operator has drained the worker of this process.
    #[error("worker_drained")]
    Drained,
    #[error("schema_too_old")]
    SchemaTooOld,
    #[error("store: {0}")]
    Store(String),
    /// A model that must be loaded at the start is not loaded yet.
    #[error("model {name}: {state}")]
    Model { name: String, state: &'static str },
}

impl Service {
    /// Queues a dead generation again.
    ///
    /// # Errors
    /// [`ServiceError::NotDead`] if the generation is not dead.
    pub async fn revive(&self, id: GenerationId) -> Result<View, ServiceError> {
        match self.query(self.0.store.revive(id)).await? {
            Some(record) => {
                self.0.wake.notify_one();
                self.0.live.event(id);
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

    /// The workers with a heartbeat within the last hour.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, ServiceError> {
        self.query(self.0.store.workers()).await
    }

    /// Asks a worker to take no more work, or to take work again. `None` if no worker has this name. Also `None` for a
    /// worker without a heartbeat within the last hour, although the command is stored for it.
    pub async fn drain_worker(&self, name: &str, drain: bool) -> Result<Option<WorkerRecord>, ServiceError> {
        if !self.query(self.0.store.drain_worker(name, drain)).await? {
            return Ok(None);
        }
        self.0.drain.announce();
        self.0.outbox.tell(Hint::DrainChanged);
        Ok(self.workers().await?.into_iter().find(|worker| worker.heartbeat.worker == name))
    }

    /// Whether the only worker is drained, and therefore no generation starts.
    pub fn is_drained(&self) -> bool {
        self.0.drain.is_set() && !self.0.store.is_shared()
    }

    /// The models that must be loaded at the start and are not loaded yet, with their states.
    pub fn unstarted(&self) -> Vec<Unready> {
        let catalogue = &self.0.catalogue;
        let awaited = catalogue.awaited().into_iter().filter(|_| self.0.computes);
        awaited.map(|name| Unready::Model { state: catalogue.state(&name).0, name }).collect()
    }

    /// The reasons why the server does not take work, for `/readyz`; empty if the server is ready.
    pub async fn unready_reasons(&self) -> Vec<Unready> {
        let mut reasons = Vec::new();
        if self.0.draining.is_cancelled() {
            reasons.push(Unready::Draining);
        }
        if self.0.devices.is_none_left() {
            reasons.push(Unready::DevicesFailed);
        }
        if self.0.drain.is_set() {
            reasons.push(Unready::Drained);
        }
        match self.bounded(self.0.store.ping()).await {
            Ok(()) => {}
            Err(StoreError::SchemaTooOld { .. }) => reasons.push(Unready::SchemaTooOld),
            Err(error) => reasons.push(Unready::Store(error.to_string())),
        }
        // Readiness does not depend on whether the models stay in memory later.
        reasons.extend(self.unstarted());
        reasons
    }
}
