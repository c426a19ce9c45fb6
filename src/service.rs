//! The service: the operations of the API, independent of HTTP. Handlers call only this module.

mod accept_policy;
mod access;
mod api_key;
mod bus;
mod caller;
mod catalogue;
mod create_request;
mod creating;
mod devices;
mod drain;
mod intake;
mod key_ring;
mod keys;
mod live;
mod lora_numbers;
mod memory;
mod new_key;
mod offload;
mod operating;
mod owning;
mod rules;
mod safety;
mod throughput;
mod unaccepted_files;
mod verification;
mod watch;
mod watch_tenant;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    catalogue::Catalogue,
    diffusion::{SchedulerName, names},
    engine::Reason,
    generation::{Artifact, Event, GenerationId, Invalid, Limits, Record, Scope, Status},
    ledger::{Blobs, Counts, Crew, Hint, ListQuery, QueuePosition, Refusal, Serving, StoreError, blobs::path_of_input},
    metrics::Metrics,
    provenance::Provenance,
    safety::Safety,
    webhooks::EndpointRegistry,
};

pub use accept_policy::AcceptPolicy;
pub use access::{Access, Reach};
pub use api_key::ApiKey;
pub use bus::{Bus, Outbox};
pub use caller::{Allowances, Caller, CallerKey};
pub use catalogue::{AddOn, ModelView};
pub use create_request::{CreateRequest, Created, Repeatable};
pub use devices::{Candidate, Devices, Load, Placed};
pub use drain::Drain;
pub use intake::is_transparent;
pub use key_ring::KeyRing;
pub use keys::{KeyCache, same};
pub use live::{Live, Phase, Preview, Progress};
pub use memory::{Memory, TakenMemory};
pub use new_key::NewKey;
pub use offload::{AT_ONCE_BYTES, offload};
pub use operating::Unready;
pub use rules::CatalogueRules;
pub use throughput::{Pace, Throughput};
pub use watch_tenant::{TenantWatched, WatchedOfTenant};

/// The tenant of requests without a key.
pub const ANONYMOUS: &str = "default";

/// A handle to all operations of the API. Cloning is cheap.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

/// The shared contents of a [`Service`].
struct Shared {
    parts: Parts,
    keys: KeyCache,
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// The parts that a [`Service`] is made of.
pub struct Parts {
    pub store: Arc<dyn Serving>,
    pub blobs: Blobs,
    /// Verifies content credentials, and keeps the credentials of uploads.
    pub provenance: Provenance,
    pub live: Live,
    pub catalogue: Arc<Catalogue>,
    pub webhooks: EndpointRegistry,
    /// The rules for pictures and prompts.
    pub safety: Safety,
    pub limits: Limits,
    pub accept_policy: AcceptPolicy,
    pub metrics: Metrics,
    pub throughput: Throughput,
    /// The load of the devices of this process.
    pub devices: Devices,
    /// The memory that running generations take.
    pub memory: Memory,
    /// Wakes the worker when there is a generation to claim.
    pub wake: Arc<Notify>,
    /// Hints for other processes.
    pub outbox: Outbox,
    /// Whether this process loads models.
    pub computes: bool,
    /// Whether the worker of this process is drained.
    pub drain: Drain,
    /// Canceled when the server stops taking work.
    pub draining: CancellationToken,
    /// Runs tasks that must run to their end even if their caller is no longer polled.
    pub tasks: TaskTracker,
}

/// A generation with its present progress or place in the queue.
#[derive(Clone, Debug)]
pub struct View {
    pub record: Record,
    /// The progress of a running generation.
    pub progress: Option<Progress>,
    /// The place of a queued generation in the queue.
    pub place: Option<QueuePosition>,
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Seconds that an attempt may take.
    pub run_timeout_s: u32,
}

/// The result of waiting for the end of a generation.
#[derive(Clone, Debug)]
pub struct Waited {
    pub view: View,
    /// Whether the wait ended early, before the timeout, because no worker will start the generation.
    pub is_cut_short: bool,
}

/// A page of a list of generations.
#[derive(Debug)]
pub struct ViewPage {
    /// The generations, without their progress and their places in the queue.
    pub views: Vec<View>,
    /// Whether the query has more generations after this page.
    pub has_more: bool,
}

/// What a watcher of a generation receives.
#[derive(Clone, Debug)]
pub enum Watched {
    /// A durable event. A watcher can resume after its `seq`.
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
    #[error("an API key is required")]
    MissingKey,
    #[error("the API key is unknown")]
    InvalidKey,
    #[error("the API key has expired")]
    KeyExpired,
    #[error("the API key does not have the scope {}", .0.as_str())]
    ScopeMissing(Scope),
    #[error("the API key may not use the model {model:?}")]
    ModelForbidden { model: String, allowed: Vec<String> },
    #[error("there is no such key")]
    NoSuchKey,
    #[error("the key was revoked")]
    KeyRevoked,
    /// The store refused the request. `retry_after_s` is exact for limits of a key, an estimate if the queue is full,
    /// and otherwise 10.
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
    /// A file cannot be stored, or cannot be read although the generation has a record.
    #[error("a picture cannot be stored or read: {0}")]
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
        let retry_after_s = if let Refusal::LimitReached(exceeded) = &refusal { exceeded.reset_s() } else { 10 };
        ServiceError::Refused { refusal, retry_after_s }
    }
}

impl Service {
    pub fn new(parts: Parts) -> Service {
        let (entries, fresh) = parts.accept_policy.key_cache;
        Service(Arc::new(Shared { keys: KeyCache::new(entries, fresh), parts }))
    }

    pub async fn get(&self, reach: impl Into<Reach<'_>> + Send, id: GenerationId) -> Result<View, ServiceError> {
        let record = self.find(reach, id).await?;
        self.view(record).await
    }

    /// Waits until the generation of this record ends, at most for `timeout`, and returns its state then. The wait ends
    /// early if the generation is queued and the only worker is drained.
    pub async fn wait(&self, record: &Record, timeout: Duration) -> Result<Waited, ServiceError> {
        if record.status.is_terminal() {
            return Ok(Waited { is_cut_short: false, view: self.seen(record.clone(), None, None) });
        }
        let events = async {
            // The watch starts at the first event, and does not end at the earlier terminal event of a revived
            // generation, because only the last event counts.
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

    /// Returns when the generation is queued and no worker takes work: the worker of this process is drained, and no
    /// other process shares the store. A drained worker still finishes its running generations. `seen` is the number of
    /// the last event that the caller has seen; the function does not return before the caller has seen all events.
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
        let page = self.query(self.0.store.list(query)).await?;
        let views = page.records.into_iter().map(|record| self.seen(record, None, None)).collect();
        Ok(ViewPage { views, has_more: page.has_more })
    }

    pub async fn cancel(&self, reach: impl Into<Reach<'_>> + Send, id: GenerationId) -> Result<View, ServiceError> {
        let found = self.find(reach, id).await?;
        self.cancel_because(&found, Reason::Canceled).await
    }

    /// As [`Service::cancel`], for a client that disconnected. The metric of wasted steps names this reason.
    pub async fn cancel_disconnected(&self, id: GenerationId) -> Result<View, ServiceError> {
        let found = self.query(self.0.store.get(id)).await?.ok_or(ServiceError::NotFound)?;
        self.cancel_because(&found, Reason::Disconnected).await
    }

    async fn cancel_because(&self, found: &Record, reason: Reason) -> Result<View, ServiceError> {
        let id = found.id;
        let record = self.query(self.0.store.cancel(id)).await?.ok_or(ServiceError::NotFound)?;
        match record.status {
            Status::Running => {
                self.0.live.cancel(id, reason);
                self.0.outbox.tell(Hint::Canceled(id));
            }
            Status::Canceled => {
                // A generation that was running is counted by its worker.
                if found.status == Status::Queued {
                    self.0.metrics.count_end(&record);
                }
                self.0.live.close(id);
                self.0.outbox.tell(Hint::Changed(id));
            }
            Status::Queued | Status::Succeeded { .. } | Status::Failed { .. } | Status::Expired => {}
        }
        self.view(record).await
    }

    /// Artifact `index` of a generation that succeeded, and the generation; otherwise [`ServiceError::NotFound`].
    pub async fn artifact(
        &self,
        reach: impl Into<Reach<'_>> + Send,
        id: GenerationId,
        index: u32,
    ) -> Result<(Record, Artifact), ServiceError> {
        let record = self.find(reach, id).await?;
        let Status::Succeeded { artifacts } = &record.status else { return Err(ServiceError::NotFound) };
        let found = artifacts.iter().find(|artifact| artifact.index == index).cloned();
        found.map(|artifact| (record, artifact)).ok_or(ServiceError::NotFound)
    }

    /// The file of an artifact.
    pub async fn file(&self, artifact: &Artifact) -> Result<Bytes, ServiceError> {
        let bytes = self.0.blobs.get(&artifact.blob).await.map_err(|error| ServiceError::Blob(error.to_string()))?;
        bytes.ok_or_else(|| ServiceError::Blob(format!("{} is missing", artifact.blob)))
    }

    /// An uploaded picture of this tenant, as a PNG; [`ServiceError::NotFound`] if no stored generation of the tenant
    /// has the picture.
    pub async fn upload(&self, tenant: &str, sha256: &str) -> Result<Bytes, ServiceError> {
        let id = self.query(self.0.store.find_input(tenant, sha256)).await?.ok_or(ServiceError::NotFound)?;
        let file = self.0.blobs.get(&path_of_input(id, sha256)).await;
        file.map_err(|error| ServiceError::Blob(error.to_string()))?.ok_or(ServiceError::NotFound)
    }

    /// The newest preview of a running generation.
    pub async fn preview(
        &self,
        reach: impl Into<Reach<'_>> + Send,
        id: GenerationId,
    ) -> Result<Option<Preview>, ServiceError> {
        self.find(reach, id).await?;
        let mut previews = self.0.live.state(id).map(|state| state.previews).unwrap_or_default();
        if previews.is_empty() {
            previews = self.query(self.0.store.previews(id)).await?;
        }
        Ok(previews.into_iter().max_by_key(|preview| (preview.step, std::cmp::Reverse(preview.index))))
    }

    /// The durable events of this generation after the event with the number `after`, one snapshot of the progress, and
    /// then everything that happens until a terminal event. The stream ends at once if there is nothing left to report.
    pub fn watch(
        &self,
        record: &Record,
        after: i64,
    ) -> impl Stream<Item = Result<Watched, ServiceError>> + Send + use<> {
        watch::watch(self.0.store.clone(), self.0.live.clone(), self.0.tasks.clone(), record.id, after)
    }

    /// The durable events of all generations of this tenant after the event with the number `after`, and everything
    /// that happens from then on. The stream has no end. Without `after`, or with a number that no event has yet, the
    /// stream begins with the next event. Also returns the number after which the stream begins.
    pub async fn watch_tenant(
        &self,
        tenant: Arc<str>,
        after: Option<i64>,
    ) -> Result<(i64, impl Stream<Item = Result<TenantWatched, ServiceError>> + Send + use<>), ServiceError> {
        let last = self.query(self.0.store.last_event_of(&tenant)).await?;
        let after = after.map_or(last, |after| after.min(last));
        let (store, live, tasks) = (self.0.store.clone(), self.0.live.clone(), self.0.tasks.clone());
        Ok((after, watch_tenant::watch(store, live, tasks, tenant, after).await?))
    }

    /// The operations on webhook endpoints.
    pub fn webhooks(&self) -> &EndpointRegistry {
        &self.0.webhooks
    }

    /// The names of all schedulers with descriptions.
    pub fn schedulers(&self) -> Vec<SchedulerName> {
        names().collect()
    }

    /// The numbers of generations of all tenants together.
    pub async fn counts(&self) -> Result<Counts, ServiceError> {
        self.query(self.0.store.counts()).await
    }

    /// The numbers of generations of one tenant.
    pub async fn counts_of(&self, tenant: &str) -> Result<Counts, ServiceError> {
        self.query(self.0.store.counts_of(tenant)).await
    }

    /// Maximum number of queued generations.
    pub fn max_queued(&self) -> usize {
        self.0.accept_policy.max_queued
    }

    /// The speed of recent generations; `None` before the first generation has ended.
    pub fn pace(&self) -> Option<Pace> {
        self.0.throughput.pace()
    }

    /// The load of each device of this process; empty if the process does not compute.
    pub fn devices(&self) -> Vec<Load> {
        self.0.devices.loads()
    }

    /// Bytes that running generations of this process take, and their maximum.
    pub fn memory(&self) -> (u64, u64) {
        self.0.memory.taken()
    }

    /// As [`Service::get`], but only the record.
    pub async fn find(&self, reach: impl Into<Reach<'_>> + Send, id: GenerationId) -> Result<Record, ServiceError> {
        let reach = reach.into();
        let record = self.query(self.0.store.get(id)).await?;
        record.filter(|record| reach.admits(record)).ok_or(ServiceError::NotFound)
    }

    /// The progress of a running generation, in this process or another one.
    async fn progress(&self, id: GenerationId) -> Result<Option<Progress>, ServiceError> {
        let progress = self.0.live.state(id).and_then(|state| state.progress);
        if progress.is_some() || !self.0.store.is_shared() {
            return Ok(progress);
        }
        Ok(self.query(self.0.store.snapshots(&[id])).await?.pop().and_then(|snapshots| snapshots.progress))
    }

    async fn view(&self, record: Record) -> Result<View, ServiceError> {
        let (progress, place) = match record.status {
            Status::Running => (self.progress(record.id).await?, None),
            Status::Queued => {
                let done = self.0.live.done();
                (None, self.query(self.0.store.place(record.id, &self.crew(&done))).await?)
            }
            Status::Succeeded { .. } | Status::Failed { .. } | Status::Canceled | Status::Expired => (None, None),
        };
        Ok(self.seen(record, progress, place))
    }

    /// The workers, for estimates of waiting times. `done` contains the finished share of each generation that this
    /// process runs.
    fn crew<'a>(&self, done: &'a [(GenerationId, f64)]) -> Crew<'a> {
        Crew { lately: self.0.accept_policy.lately, slots: self.0.accept_policy.slots, done }
    }

    fn seen(&self, record: Record, progress: Option<Progress>, place: Option<QueuePosition>) -> View {
        let run_timeout_s = record.job.run_timeout_s.unwrap_or(self.0.accept_policy.run_timeout_s);
        View { record, progress, place, max_attempts: self.0.accept_policy.max_attempts, run_timeout_s }
    }

    async fn query<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, ServiceError> {
        Ok(self.bounded(answer).await?)
    }

    /// As [`Service::query`], for work that calls the store several times.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
        self.bounded(async { Ok(work.await) }).await?
    }

    /// Bounds the time of a call to a shared store, because a database behind a network may neither answer nor fail.
    /// SQLite always answers or fails, and only waits for earlier writes.
    async fn bounded<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if !self.0.store.is_shared() {
            return answer.await;
        }
        tokio::time::timeout(self.0.accept_policy.store_timeout, answer).await.unwrap_or(Err(StoreError::TimedOut))
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}
