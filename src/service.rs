//! The desk: what the API means. Handlers call only this.

mod bus;
mod intake;
mod live;
mod rules;
mod throughput;
mod watch;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    diffusion::{SchedulerName, names},
    engine::Reason,
    generation::{Event, Fields, GenerationId, Image, Invalid, Limits, ModelCard, Record, Status, resolve},
    ledger::{Acceptance, Accepted, Blobs, Counts, Hint, ListQuery, Page, Store, StoreError},
    metrics::Metrics,
    pipelines::Catalogue,
};

pub use bus::{Bus, Outbox};
pub use live::{Live, Phase, Preview, Progress};
pub use rules::CatalogueRules;
pub use throughput::{Pace, Throughput};

/// The tenant of everybody without a key.
pub const ANONYMOUS: &str = "default";

/// A cheap handle to everything that a handler may ask for.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

/// What the service is made of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub blobs: Blobs,
    pub live: Live,
    pub catalogue: Arc<Catalogue>,
    pub limits: Limits,
    /// Most generations that may wait.
    pub max_queued: usize,
    pub metrics: Metrics,
    pub throughput: Throughput,
    /// Tells the worker that there is something to claim.
    pub wake: Arc<Notify>,
    /// Tells other processes.
    pub outbox: Outbox,
    /// Whether this process loads models.
    pub computes: bool,
    /// Set when the server stops taking work.
    pub draining: CancellationToken,
    /// Where reads run that must end even if nobody polls for their answer.
    pub tasks: TaskTracker,
}

/// A generation with what only this moment knows of it.
#[derive(Clone, Debug)]
pub struct View {
    pub record: Record,
    /// Of a running generation.
    pub progress: Option<Progress>,
    /// Of a queued generation: how many are before it.
    pub position: Option<usize>,
}

/// What a watcher of a generation sees.
#[derive(Clone, Debug)]
pub enum Watched {
    /// A durable event; resumable after its `seq`.
    Event(Event),
    /// The newest progress; older ones may have been skipped.
    Progress(Progress),
    /// The newest preview; older ones may have been skipped.
    Preview(Preview),
}

/// A model as the catalogue lists it.
#[derive(Clone, Debug)]
pub struct ModelView {
    pub name: String,
    /// `ready`, `loading`, `cold` or `failed`.
    pub state: &'static str,
    /// Why its folder cannot be used.
    pub error: Option<String>,
    /// Memory that its weights take, whether they are loaded or not.
    pub bytes: Option<u64>,
    pub card: Option<Arc<ModelCard>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// `retry_after_s` is estimated from the queue's length and the recent throughput.
    #[error("{queued} generations wait already")]
    QueueFull { queued: usize, retry_after_s: u64 },
    #[error("the server is stopping")]
    Draining,
    #[error("there is no such generation")]
    NotFound,
    #[error("the generation is not finished")]
    NotFinished,
    /// The picture's bytes cannot be read although the record names them.
    #[error("a stored picture cannot be read: {0}")]
    Blob(String),
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> ServiceError {
        match error {
            StoreError::NotFinished => ServiceError::NotFinished,
            other => ServiceError::Store(other),
        }
    }
}

impl Service {
    pub fn new(parts: Parts) -> Service {
        Service(Arc::new(parts))
    }

    /// Accepts a generation: after this returns it is durable.
    ///
    /// # Errors
    /// All invalid fields at once, a full queue, a stopping server, or a store that does not answer.
    pub async fn create(&self, mut fields: Fields) -> Result<View, ServiceError> {
        let Parts { store, blobs, metrics, wake, draining, .. } = &*self.0;
        if draining.is_cancelled() {
            return Err(ServiceError::Draining);
        }
        let taken = intake::take_in(&mut fields, store.as_ref(), blobs).await?;
        let generation = resolve(fields, &CatalogueRules { catalogue: &self.0.catalogue, limits: &self.0.limits })?;
        let id = GenerationId::new();
        intake::keep(taken, id, blobs).await?;
        let acceptance = Acceptance {
            id,
            tenant: ANONYMOUS,
            generation: &generation,
            fingerprint: Default::default(),
            key: None,
            cost: generation.cost(),
            max_queued: self.0.max_queued,
        };
        let record = match store.accept(&acceptance).await {
            Ok(Accepted::New(record) | Accepted::Again(record)) => record,
            Err(error) => {
                // What cannot be erased now is found later, as files without a generation.
                if generation.inputs().next().is_some() {
                    let _ = blobs.delete_generation(id).await;
                }
                return Err(self.refused(error));
            }
        };
        metrics.accepted.inc();
        wake.notify_one();
        self.0.outbox.tell(Hint::Queued);
        self.view(record).await
    }

    fn refused(&self, error: StoreError) -> ServiceError {
        match error {
            StoreError::QueueFull { queued } => {
                let seconds = self.pace().map_or(1.0, |pace| pace.until_start(queued));
                ServiceError::QueueFull { queued, retry_after_s: seconds.ceil().clamp(1.0, 600.0) as u64 }
            }
            error => error.into(),
        }
    }

    pub async fn get(&self, id: GenerationId) -> Result<View, ServiceError> {
        let record = self.0.store.get(id).await?.ok_or(ServiceError::NotFound)?;
        self.view(record).await
    }

    /// Returns as soon as the generation has ended, at the latest after `timeout`, with its state then.
    pub async fn wait(&self, id: GenerationId, timeout: Duration) -> Result<View, ServiceError> {
        let ended = async {
            let mut watched = Box::pin(self.watch(id, 0).await?);
            while let Some(seen) = watched.next().await {
                seen?;
            }
            Ok::<(), ServiceError>(())
        };
        tokio::time::timeout(timeout, ended).await.unwrap_or(Ok(()))?;
        self.get(id).await
    }

    pub async fn list(&self, query: &ListQuery) -> Result<Page, ServiceError> {
        Ok(self.0.store.list(query).await?)
    }

    pub async fn cancel(&self, id: GenerationId) -> Result<View, ServiceError> {
        self.cancel_because(id, Reason::Canceled).await
    }

    /// As [`Service::cancel`], for a client that left; counted as such in the metrics.
    pub async fn cancel_disconnected(&self, id: GenerationId) -> Result<View, ServiceError> {
        self.cancel_because(id, Reason::Disconnected).await
    }

    async fn cancel_because(&self, id: GenerationId, reason: Reason) -> Result<View, ServiceError> {
        let record = self.0.store.cancel(id).await?.ok_or(ServiceError::NotFound)?;
        match record.status {
            Status::Running => {
                self.0.live.cancel(id, reason);
                self.0.outbox.tell(Hint::Canceled(id));
            }
            Status::Canceled => {
                self.0.live.close(id);
                self.0.outbox.tell(Hint::Changed(id));
            }
            Status::Queued | Status::Succeeded { .. } | Status::Failed { .. } | Status::Expired => {}
        }
        self.view(record).await
    }

    /// Erases a finished generation and its pictures.
    pub async fn delete(&self, id: GenerationId) -> Result<(), ServiceError> {
        self.0.store.delete(id).await?.ok_or(ServiceError::NotFound)?;
        // The record is gone already, so nothing can reach the files; a failure only leaves them lying for a while.
        if let Err(error) = self.0.blobs.delete_generation(id).await {
            tracing::warn!(%id, %error, "a deleted generation's files stay on the disk for now");
        }
        Ok(())
    }

    /// The file of image `index` of a generation that succeeded, with its record; [`ServiceError::NotFound`] else.
    pub async fn content(&self, id: GenerationId, index: u32) -> Result<(Image, Bytes), ServiceError> {
        let record = self.0.store.get(id).await?.ok_or(ServiceError::NotFound)?;
        let Status::Succeeded { images } = record.status else { return Err(ServiceError::NotFound) };
        let image = images.into_iter().find(|image| image.index == index).ok_or(ServiceError::NotFound)?;
        let bytes = self.0.blobs.get(&image.blob).await.map_err(|error| ServiceError::Blob(error.to_string()))?;
        let bytes = bytes.ok_or_else(|| ServiceError::Blob(format!("{} is missing", image.blob)))?;
        Ok((image, bytes))
    }

    /// The newest preview of a running generation.
    pub async fn preview(&self, id: GenerationId) -> Result<Option<Preview>, ServiceError> {
        self.0.store.get(id).await?.ok_or(ServiceError::NotFound)?;
        let mut previews = self.0.live.state(id).map(|state| state.previews).unwrap_or_default();
        if previews.is_empty() {
            previews = self.0.store.previews(id).await?;
        }
        Ok(previews.into_iter().max_by_key(|preview| (preview.step, std::cmp::Reverse(preview.index))))
    }

    /// Every durable event after `after`, then one snapshot of the progress, then what happens, until a terminal event
    /// has been seen. Ends at once where nothing is left to tell.
    pub async fn watch(
        &self,
        id: GenerationId,
        after: i64,
    ) -> Result<impl Stream<Item = Result<Watched, ServiceError>> + Send + use<>, ServiceError> {
        self.0.store.get(id).await?.ok_or(ServiceError::NotFound)?;
        Ok(watch::watch(self.0.store.clone(), self.0.live.clone(), self.0.tasks.clone(), id, after))
    }

    pub fn models(&self) -> Vec<ModelView> {
        let view = |name: &str| {
            let (catalogue, (state, error)) = (&self.0.catalogue, self.0.catalogue.state(name));
            let (bytes, card) = (catalogue.bytes(name), catalogue.card(name));
            ModelView { name: name.to_owned(), state, error, bytes, card }
        };
        self.0.catalogue.names().map(view).collect()
    }

    /// Names of the LoRAs, and the bytes of their files.
    pub fn loras(&self) -> Vec<(String, u64)> {
        self.0.catalogue.adapters().loras().map(|(name, file)| (name.to_owned(), file.bytes)).collect()
    }

    /// Names of the ControlNets, and why one cannot be used.
    pub fn control_nets(&self) -> Vec<(String, Option<String>)> {
        let names = self.0.catalogue.control_nets().names();
        names.map(|(name, error)| (name.to_owned(), error.map(str::to_owned))).collect()
    }

    pub fn default_model(&self) -> &str {
        self.0.catalogue.default_name()
    }

    /// Names of the schedulers with one line for people.
    pub fn schedulers(&self) -> Vec<SchedulerName> {
        names().collect()
    }

    pub async fn counts(&self) -> Result<Counts, ServiceError> {
        Ok(self.0.store.counts().await?)
    }

    /// Most generations that may wait.
    pub fn max_queued(&self) -> usize {
        self.0.max_queued
    }

    /// How the recent generations went; `None` before the first has ended.
    pub fn pace(&self) -> Option<Pace> {
        self.0.throughput.pace()
    }

    /// What keeps the server from taking work, for `/readyz`; empty when it is ready.
    pub async fn unready_reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.0.draining.is_cancelled() {
            reasons.push("draining".to_owned());
        }
        match self.0.store.ping().await {
            Ok(()) => {}
            Err(StoreError::SchemaTooOld { .. }) => reasons.push("schema_too_old".to_owned()),
            Err(error) => reasons.push(format!("store: {error}")),
        }
        // Those that are to be loaded at the start; whether they are in memory later on is nobody's concern.
        for name in self.0.catalogue.awaited().into_iter().filter(|_| self.0.computes) {
            reasons.push(format!("model {name}: {}", self.0.catalogue.state(&name).0));
        }
        reasons
    }

    /// Of a running generation, here or elsewhere.
    async fn progress(&self, id: GenerationId) -> Result<Option<Progress>, ServiceError> {
        let progress = self.0.live.state(id).and_then(|state| state.progress);
        if progress.is_some() || !self.0.store.is_shared() {
            return Ok(progress);
        }
        Ok(self.0.store.glance(&[id]).await?.pop().and_then(|glance| glance.progress))
    }

    async fn view(&self, record: Record) -> Result<View, ServiceError> {
        let (progress, position) = match record.status {
            Status::Running => (self.progress(record.id).await?, None),
            Status::Queued => (None, self.0.store.position(record.id).await?),
            Status::Succeeded { .. } | Status::Failed { .. } | Status::Canceled | Status::Expired => (None, None),
        };
        Ok(View { record, progress, position })
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}
