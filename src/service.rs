//! The desk: what the API means. Handlers call only this.

mod access;
mod bus;
mod catalogue;
mod creating;
mod devices;
mod drain;
mod intake;
mod key;
mod keys;
mod live;
mod lora_numbers;
mod memory;
mod offload;
mod operating;
mod order;
mod rules;
mod terms;
mod throughput;
mod unclaimed;
mod watch;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    catalogue::Catalogue,
    diffusion::{SchedulerName, names},
    engine::Reason,
    generation::{Artifact, Event, GenerationId, Invalid, Limits, Record, Status},
    ledger::{Blobs, Counts, Hint, ListQuery, Place, Refusal, Serving, StoreError, blobs::path_of_input},
    metrics::Metrics,
    webhooks::Registry,
};

use keys::Keys;

pub use access::Access;
pub use bus::{Bus, Outbox};
pub use catalogue::{AddOn, ModelView};
pub use devices::{Candidate, Devices, Load, Placed};
pub use drain::Drain;
pub use key::Key;
pub use keys::NewKey;
pub use live::{Live, Phase, Preview, Progress};
pub use memory::{Memory, TakenMemory};
pub use offload::{AT_ONCE_BYTES, offload};
pub use operating::Unready;
pub use order::{Created, Order, Repeatable};
pub use rules::CatalogueRules;
pub use terms::Terms;
pub use throughput::{Pace, Throughput};

/// The tenant of everybody without a key.
pub const ANONYMOUS: &str = "default";

/// A cheap handle to everything that a handler may ask for.
#[derive(Clone)]
pub struct Service(Arc<Desk>);

/// The parts, and what the desk keeps for itself.
struct Desk {
    parts: Parts,
    keys: Keys,
}

impl std::ops::Deref for Desk {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What the service is made of.
pub struct Parts {
    pub store: Arc<dyn Serving>,
    pub blobs: Blobs,
    pub live: Live,
    pub catalogue: Arc<Catalogue>,
    pub webhooks: Registry,
    pub limits: Limits,
    pub terms: Terms,
    pub metrics: Metrics,
    pub throughput: Throughput,
    /// What the devices of this process have in hand.
    pub devices: Devices,
    /// What they take of its memory.
    pub memory: Memory,
    /// Tells the worker that there is something to claim.
    pub wake: Arc<Notify>,
    /// Tells other processes.
    pub outbox: Outbox,
    /// Whether this process loads models.
    pub computes: bool,
    /// Whether the worker of this process is drained.
    pub drain: Drain,
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
    pub place: Option<Place>,
    /// How often it is begun at most.
    pub max_attempts: u32,
    /// Seconds that an attempt may take.
    pub run_timeout_s: u32,
}

/// What came of a wait for the end of a generation.
#[derive(Clone, Debug)]
pub struct Waited {
    pub view: View,
    /// Neither has the generation ended nor has the time: the wait ended since nobody will begin the generation.
    pub is_cut_short: bool,
}

/// A page of a list.
#[derive(Debug)]
pub struct ViewPage {
    /// Without progress and position.
    pub views: Vec<View>,
    /// More generations of the query lie beyond this page.
    pub has_more: bool,
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

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The folders of models cannot be read.
    #[error("{0}")]
    Catalogue(String),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("a key is needed")]
    MissingKey,
    #[error("the key is none of ours")]
    InvalidKey,
    /// `retry_after_s` counts where the queue is full: it is estimated from what waits and how fast it has been going.
    #[error("{refusal}")]
    Refused { refusal: Refusal, retry_after_s: u64 },
    #[error("a generation would wait about {wait_s} s, more than {bound_s} s")]
    Overloaded { wait_s: u64, bound_s: u64, retry_after_s: u64 },
    #[error("the generation was not given up")]
    NotDead,
    #[error("the system has no random bytes: {0}")]
    NoRandomness(String),
    #[error("the server is stopping")]
    Draining,
    #[error("there is no such generation")]
    NotFound,
    /// The picture's bytes cannot be read although the record names them.
    #[error("a stored picture cannot be read: {0}")]
    Blob(String),
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> ServiceError {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            other => ServiceError::Store(other),
        }
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> ServiceError {
        ServiceError::Refused { refusal, retry_after_s: 10 }
    }
}

impl Service {
    pub fn new(parts: Parts) -> Service {
        let (entries, fresh) = parts.terms.key_cache;
        Service(Arc::new(Desk { keys: Keys::new(entries, fresh), parts }))
    }

    pub async fn get(&self, access: Access<'_>, id: GenerationId) -> Result<View, ServiceError> {
        let record = self.find(access, id).await?;
        self.view(record).await
    }

    /// Returns as soon as the generation of this record has ended, at the latest after `timeout`, with its state then. One that
    /// nobody will begin is not waited for: it is queued, and the only worker is drained.
    pub async fn wait(&self, record: &Record, timeout: Duration) -> Result<Waited, ServiceError> {
        if record.status.is_terminal() {
            return Ok(Waited { is_cut_short: false, view: self.seen(record.clone(), None, None) });
        }
        let events = async {
            // From its first event on: one that was revived has an end behind it that is none any more.
            let mut watched = Box::pin(self.watch(record, 0));
            while let Some(seen) = watched.next().await {
                seen?;
            }
            Ok::<(), ServiceError>(())
        };
        let is_cut_short = tokio::select! {
            biased;
            ended = events => ended.map(|()| false),
            () = self.stands_still(record.id, i64::MAX) => Ok(true),
            () = tokio::time::sleep(timeout) => Ok(false),
        }?;
        let view = self.get(Access::Full, record.id).await?;
        Ok(Waited { is_cut_short: is_cut_short && !view.record.status.is_terminal(), view })
    }

    /// Returns when the generation is queued and no worker takes work: that of this process is drained, and no other process
    /// shares its store. What runs still ends. It does not return before all events are seen; `seen` is the last one's number.
    pub async fn stands_still(&self, id: GenerationId, seen: i64) {
        const PAUSE: Duration = Duration::from_secs(1);
        if self.0.store.is_shared() {
            return std::future::pending().await;
        }
        loop {
            self.0.drain.until_set().await;
            let events = self.0.store.events(id, seen).await;
            match self.0.store.get(id).await {
                Ok(Some(Record { status: Status::Queued, .. })) if events.is_ok_and(|unseen| unseen.is_empty()) => {
                    return;
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    pub async fn list(&self, query: &ListQuery) -> Result<ViewPage, ServiceError> {
        let page = self.ask(self.0.store.list(query)).await?;
        let views = page.records.into_iter().map(|record| self.seen(record, None, None)).collect();
        Ok(ViewPage { views, has_more: page.has_more })
    }

    pub async fn cancel(&self, access: Access<'_>, id: GenerationId) -> Result<View, ServiceError> {
        self.find(access, id).await?;
        self.cancel_because(id, Reason::Canceled).await
    }

    /// As [`Service::cancel`], for a client that left; counted as such in the metrics.
    pub async fn cancel_disconnected(&self, id: GenerationId) -> Result<View, ServiceError> {
        self.cancel_because(id, Reason::Disconnected).await
    }

    async fn cancel_because(&self, id: GenerationId, reason: Reason) -> Result<View, ServiceError> {
        let record = self.ask(self.0.store.cancel(id)).await?.ok_or(ServiceError::NotFound)?;
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

    /// Erases a finished generation and its artifacts.
    pub async fn delete(&self, access: Access<'_>, id: GenerationId) -> Result<(), ServiceError> {
        self.find(access, id).await?;
        self.ask(self.0.store.delete(id)).await?.ok_or(ServiceError::NotFound)?;
        self.erase_blobs(id).await;
        Ok(())
    }

    /// There is no record, so nothing can reach the files; a failure only leaves them lying for a while.
    async fn erase_blobs(&self, id: GenerationId) {
        if let Err(error) = self.0.blobs.delete_generation(id).await {
            tracing::warn!(%id, %error, "files without a generation stay for now");
        }
    }

    /// Artifact `index` of a generation that succeeded; [`ServiceError::NotFound`] otherwise.
    pub async fn artifact(&self, access: Access<'_>, id: GenerationId, index: u32) -> Result<Artifact, ServiceError> {
        let record = self.find(access, id).await?;
        let Status::Succeeded { artifacts } = record.status else { return Err(ServiceError::NotFound) };
        artifacts.into_iter().find(|artifact| artifact.index == index).ok_or(ServiceError::NotFound)
    }

    /// The file of an artifact.
    pub async fn file(&self, artifact: &Artifact) -> Result<Bytes, ServiceError> {
        let bytes = self.0.blobs.get(&artifact.blob).await.map_err(|error| ServiceError::Blob(error.to_string()))?;
        bytes.ok_or_else(|| ServiceError::Blob(format!("{} is missing", artifact.blob)))
    }

    /// The picture that a request of this tenant brought along, as a PNG; [`ServiceError::NotFound`] where no generation that
    /// is kept has it.
    pub async fn upload(&self, tenant: &str, sha256: &str) -> Result<Bytes, ServiceError> {
        let id = self.ask(self.0.store.find_input(tenant, sha256)).await?.ok_or(ServiceError::NotFound)?;
        let file = self.0.blobs.get(&path_of_input(id, sha256)).await;
        file.map_err(|error| ServiceError::Blob(error.to_string()))?.ok_or(ServiceError::NotFound)
    }

    /// The newest preview of a running generation.
    pub async fn preview(&self, access: Access<'_>, id: GenerationId) -> Result<Option<Preview>, ServiceError> {
        self.find(access, id).await?;
        let mut previews = self.0.live.state(id).map(|state| state.previews).unwrap_or_default();
        if previews.is_empty() {
            previews = self.ask(self.0.store.previews(id)).await?;
        }
        Ok(previews.into_iter().max_by_key(|preview| (preview.step, std::cmp::Reverse(preview.index))))
    }

    /// Every durable event of this generation after `after`, then one snapshot of the progress, then what happens, until a
    /// terminal event has been seen. Ends at once where nothing is left to tell.
    pub fn watch(
        &self,
        record: &Record,
        after: i64,
    ) -> impl Stream<Item = Result<Watched, ServiceError>> + Send + use<> {
        watch::watch(self.0.store.clone(), self.0.live.clone(), self.0.tasks.clone(), record.id, after)
    }

    /// The desk for endpoints of webhooks.
    pub fn webhooks(&self) -> &Registry {
        &self.0.webhooks
    }

    /// Names of the schedulers with one line for people.
    pub fn schedulers(&self) -> Vec<SchedulerName> {
        names().collect()
    }

    /// Of all tenants together.
    pub async fn counts(&self) -> Result<Counts, ServiceError> {
        self.ask(self.0.store.counts()).await
    }

    pub async fn counts_of(&self, tenant: &str) -> Result<Counts, ServiceError> {
        self.ask(self.0.store.counts_of(tenant)).await
    }

    /// Most generations that may wait.
    pub fn max_queued(&self) -> usize {
        self.0.terms.max_queued
    }

    /// How the recent generations went; `None` before the first has ended.
    pub fn pace(&self) -> Option<Pace> {
        self.0.throughput.pace()
    }

    /// What the devices of this process have in hand; none where it does not compute.
    pub fn devices(&self) -> Vec<Load> {
        self.0.devices.loads()
    }

    /// As [`Service::get`], the record alone.
    pub async fn find(&self, access: Access<'_>, id: GenerationId) -> Result<Record, ServiceError> {
        let record = self.ask(self.0.store.get(id)).await?;
        record.filter(|record| access.admits(record)).ok_or(ServiceError::NotFound)
    }

    /// Of a running generation, here or elsewhere.
    async fn progress(&self, id: GenerationId) -> Result<Option<Progress>, ServiceError> {
        let progress = self.0.live.state(id).and_then(|state| state.progress);
        if progress.is_some() || !self.0.store.is_shared() {
            return Ok(progress);
        }
        Ok(self.ask(self.0.store.glance(&[id])).await?.pop().and_then(|glance| glance.progress))
    }

    async fn view(&self, record: Record) -> Result<View, ServiceError> {
        let (progress, place) = match record.status {
            Status::Running => (self.progress(record.id).await?, None),
            Status::Queued => (None, self.ask(self.0.store.place(record.id)).await?),
            Status::Succeeded { .. } | Status::Failed { .. } | Status::Canceled | Status::Expired => (None, None),
        };
        Ok(self.seen(record, progress, place))
    }

    fn seen(&self, record: Record, progress: Option<Progress>, place: Option<Place>) -> View {
        let run_timeout_s = record.job.run_timeout_s.unwrap_or(self.0.terms.run_timeout_s);
        View { record, progress, place, max_attempts: self.0.terms.max_attempts, run_timeout_s }
    }

    async fn ask<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, ServiceError> {
        Ok(self.bounded(answer).await?)
    }

    /// The store's answer in bounded time. A file answers or fails by itself, and who waits there waits behind others that
    /// write; a database behind a network may do neither.
    async fn bounded<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if !self.0.store.is_shared() {
            return answer.await;
        }
        tokio::time::timeout(self.0.terms.store_timeout, answer).await.unwrap_or(Err(StoreError::TimedOut))
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}
