//! What must survive: generations, their events, their artifacts.
//!
//! The ledger is the truth. What lives in memory (step 12 of 30) can be lost without losing a generation; what the
//! ledger has accepted is durable, reaches exactly one final state, may run more than once and appears once.

pub mod blobs;
pub mod postgres;
mod queue;
pub mod sqlite;
mod webhooks;
mod workers;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::crash::Attempt;
use crate::generation::{Artifact, Event, GenerationId, Preview, Problem, Record};

pub use blobs::{BlobError, Blobs};
pub use postgres::PgStore;
pub use queue::{Acceptance, Accepted, Claimant, Fingerprint, Place, Reaped, Reaping, Renewed, Workload};
pub use sqlite::{Clock, Reading, SqliteStore};
pub use webhooks::{
    Answer, ClaimedDelivery, Delivery, DeliveryClaim, DeliveryPage, DeliveryState, Endpoint, EndpointTerms,
    NewEndpoint, Next, WebhookStore,
};
pub use workers::{Beat, Glance, Hint, KeyRecord, Orders, Report, WorkerRecord};

/// The table of generations and events. Every change of state is one conditional transaction that also appends the
/// event which tells of it; a change that no longer applies changes nothing. Times are the database's.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes the generation durable in state `queued`, with its first event, in its tenant's place of the queue.
    ///
    /// A request that was accepted before, by its idempotency key or by its id, is answered with the generation that it
    /// made, whatever became of it since; the key is looked at first. An erased generation takes its id and its key along:
    /// both are free again, as is a key whose time is over. Nothing of an answer [`Accepted::Again`] is written.
    ///
    /// The share of its tenant is charged with the generation here, whatever becomes of it.
    ///
    /// # Errors
    /// [`StoreError::QueueFull`], [`StoreError::TenantQueueFull`], [`StoreError::KeyReused`], [`StoreError::IdTaken`].
    async fn accept(&self, acceptance: &Acceptance<'_>) -> Result<Accepted, StoreError>;

    /// The generation that this tenant's idempotency key stands for, and the fingerprint of the request that made it.
    async fn find_accepted(&self, tenant: &str, key: &str) -> Result<Option<(GenerationId, Fingerprint)>, StoreError>;

    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// A page of records, newest first. Unreadable rows are passed over, as in every method that looks at many.
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError>;

    /// Takes up to `limit` queued generations for this worker in the order of the queue: priority, then the tenants' fair
    /// share, then age. Each becomes `running` under a lease, its attempt and fence grow by one. Not taken are those that
    /// wait for the delay of a retry, those whose `start_timeout_s` has passed before their first claim, those of tenants
    /// with as many running as they may have, and those of models that the worker has not.
    ///
    /// A generation that was running when a process ended is claimed alone: by an `idle` worker, and nothing beside it, in
    /// this claim and in others of that worker for as long as it runs. One at the head of the queue keeps a worker that is not
    /// idle from claiming, so that it becomes idle; for other workers the queue goes on behind it.
    async fn claim(&self, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<(Record, Lease)>, StoreError>;

    /// Prolongs the leases that still are their generations', also one that has ended but was not taken back yet, and tells of
    /// each whether its client has canceled it. One that is not returned is lost: its work must be thrown away.
    async fn renew(&self, by: &Claimant, leases: &[Lease]) -> Result<Vec<Renewed>, StoreError>;

    /// Ends a run. Returns the record, or `None` where the lease is no longer the generation's: then nothing changed
    /// and the outcome must be thrown away. A generation whose client has asked to cancel it is not queued again but
    /// canceled, and one that was canceled before its artifacts were stored does not succeed any more.
    async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Option<Record>, StoreError>;

    /// Takes running generations back whose worker is gone: queued again, one crash counted, after a delay that doubles with
    /// each. Those with [`Reaping::max_crashes`] fail with `worker_crashed` and are marked dead; those whose client has asked
    /// for it are canceled. Several processes may reap at the same time.
    async fn reap(&self, reaping: &Reaping) -> Result<Reaped, StoreError>;

    /// Gives a generation up after one crash, since this attempt is known to have aborted its process: fails it with
    /// `worker_crashed` and marks it dead, or cancels it if its client has asked for that. `None`, and no change, if a later
    /// attempt has begun or the generation has ended.
    async fn condemn(&self, attempt: Attempt) -> Result<Option<Record>, StoreError>;

    /// Cancels: a queued generation at once, a running one by a mark that its worker obeys before the next step; a
    /// finished one is returned unchanged. `None`: there is no such generation.
    async fn cancel(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// Queues a dead generation again, as if it had never run, in its old place of the queue and whatever the queue's bounds.
    /// Its fence goes on, and so do its events: only here does one follow a final one. `None`: there is no such dead
    /// generation.
    async fn revive(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// Erases a finished generation with its events; the caller erases the blobs of the returned record.
    ///
    /// # Errors
    /// [`StoreError::NotFinished`].
    async fn delete(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// The events after `seq`, in order. Empty for an unknown generation.
    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError>;

    /// A generation of this tenant whose request brought along the picture with this SHA-256, if one is kept; the newest of
    /// several.
    async fn find_input(&self, tenant: &str, sha256: &str) -> Result<Option<GenerationId>, StoreError>;

    /// Expires queued generations whose `start_timeout_s` has passed before they were claimed for the first time;
    /// returns them. One that began once and came back to the queue never expires.
    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError>;

    /// Raises every queued generation that was accepted and last raised so long ago by one priority, none beyond the highest.
    async fn age(&self, after: Duration) -> Result<(), StoreError>;

    /// Finished generations whose retention has ended, at most `limit`, for the sweeper to delete.
    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// Erases what nobody looks for any more: idempotency keys whose time is over, workers that have not beaten for an hour.
    async fn purge(&self) -> Result<(), StoreError>;

    /// How many generations wait and run.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// How many generations of this tenant wait and run.
    async fn counts_of(&self, tenant: &str) -> Result<Counts, StoreError>;

    /// How much work is before a generation that would be accepted now, and how fast the workers are that have beaten lately, each
    /// of which runs `slots` generations at a time.
    async fn workload(&self, lately: Duration, slots: usize) -> Result<Workload, StoreError>;

    /// The queued generations before this one in the order of the queue, whoever may claim them and when; `None` where it is
    /// not queued.
    async fn place(&self, id: GenerationId) -> Result<Option<Place>, StoreError>;

    /// Whether other processes use the store at the same time, so that they must hear of each other through it.
    fn is_shared(&self) -> bool;

    /// Leaves progress and previews for other processes to see; they survive nothing. Where a lease is lost, nothing.
    async fn report(&self, reports: &[Report]) -> Result<(), StoreError>;

    /// What a watcher in another process sees of these generations; those that are gone are left out.
    async fn glance(&self, ids: &[GenerationId]) -> Result<Vec<Glance>, StoreError>;

    /// The previews that were reported, the latest of each artifact.
    async fn previews(&self, id: GenerationId) -> Result<Vec<Preview>, StoreError>;

    /// Tells other processes to look at once at what they would look at within a second anyway. Hints may be lost.
    async fn hint(&self, hints: &[Hint]) -> Result<(), StoreError>;

    /// What other processes hint at, from now on. Never ends; silent where the store is not shared or cannot hint.
    fn hints(&self) -> BoxStream<'static, Hint>;

    /// A worker shows that it lives; returns whether an operator has asked it to take no more work.
    async fn beat(&self, beat: &Beat) -> Result<Orders, StoreError>;

    /// The workers that have beaten within the last hour, by name.
    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError>;

    /// Asks a worker to take no more work, or with `false` to take work again, which its next [`Store::beat`] tells it; whether
    /// there is one of that name.
    async fn drain_worker(&self, worker: &str, drain: bool) -> Result<bool, StoreError>;

    /// The worker has ended in order.
    async fn leave(&self, worker: &str) -> Result<(), StoreError>;

    /// Makes an API key and, where there is none of that name, its tenant; the weight and caps given are the tenant's from
    /// now on. A key whose public part is taken is an error and changes nothing.
    async fn create_key(&self, key: &KeyRecord) -> Result<(), StoreError>;

    /// Whether a key was ever made, revoked or not.
    async fn has_keys(&self) -> Result<bool, StoreError>;

    /// The key with this public part, unless it was revoked.
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError>;

    /// Reads and writes nothing but proves that the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// The right to write the outcome of one attempt of one generation, for as long as it is renewed; spent by
/// [`Store::finish`]. A clone is for trying again where the store did not answer: the fence lets only one of them count.
#[derive(Clone, Debug)]
pub struct Lease {
    pub(in crate::ledger) id: GenerationId,
    pub(in crate::ledger) fence: i64,
}

impl Lease {
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// Names this attempt in blob paths, so that a late loser never overwrites the winner's artifacts.
    pub fn fence(&self) -> i64 {
        self.fence
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Succeeded(Vec<Artifact>),
    Failed(Problem),
    Canceled,
    /// Not ended: back to the queue, as a stopping worker does. The attempt is not counted.
    Released,
    /// A passing fault: queued again, to be claimed after the delay; the attempt is counted.
    Retry {
        problem: Problem,
        delay: Duration,
    },
}

#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// 1..=100.
    pub limit: usize,
    /// Only generations older than this one.
    pub after: Option<GenerationId>,
    /// Only generations newer than this one: the `limit` next to it, unless `after` is given too (still returned newest
    /// first).
    pub before: Option<GenerationId>,
    /// Only this status: one of the words of [`Status::as_str`](crate::generation::Status::as_str).
    pub status: Option<String>,
    pub model: Option<String>,
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only those that were given up after too many crashes.
    pub dead: bool,
}

#[derive(Debug)]
pub struct Page {
    pub records: Vec<Record>,
    /// More generations of the query lie beyond this page.
    pub has_more: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub queued: usize,
    pub running: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{queued} generations wait already")]
    QueueFull { queued: usize },
    #[error("{queued} generations of this tenant wait already")]
    TenantQueueFull { queued: usize },
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("the id is that of another generation")]
    IdTaken,
    #[error("the generation is not finished")]
    NotFinished,
    #[error("another process uses {path}")]
    Locked { path: std::path::PathBuf },
    #[error("the disk is full")]
    StorageFull,
    /// Whether the change was made is not known.
    #[error("the database did not answer in time")]
    TimedOut,
    #[error("the database failed: {0}")]
    Database(#[source] sqlx::Error),
    #[error("the database's schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the database's schema has version {found} and needs {needed}: run `latentd migrate`")]
    SchemaTooOld { found: i64, needed: i64 },
    #[error("a stored {what} of {id} cannot be read: {detail}")]
    Corrupt { id: GenerationId, what: &'static str, detail: String },
    #[error("{0}")]
    Io(#[source] std::io::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) => error.into(),
            sqlx::Error::Database(error) if sqlite::is_full(error.as_ref()) || postgres::is_full(error.as_ref()) => {
                StoreError::StorageFull
            }
            error => StoreError::Database(error),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        if blobs::is_full(&error) { StoreError::StorageFull } else { StoreError::Io(error) }
    }
}
