//! What must survive: generations, their events, their pictures.
//!
//! The ledger is the truth. What lives in memory (step 12 of 30) can be lost without losing a generation; what the
//! ledger has accepted is durable, reaches exactly one final state, may run more than once and appears once.

pub mod blobs;
pub mod sqlite;
mod webhooks;

use std::time::Duration;

use async_trait::async_trait;

use crate::generation::{Event, Generation, GenerationId, Image, Problem, Record};

pub use blobs::{BlobError, Blobs};
pub use sqlite::SqliteStore;
pub use webhooks::{
    Answer, ClaimedDelivery, Delivery, DeliveryClaim, DeliveryPage, DeliveryState, Endpoint, EndpointTerms, NewEndpoint, Next,
    WebhookStore,
};

/// The table of generations and events. Every change of state is one conditional transaction that also appends the
/// event which tells of it; a change that no longer applies changes nothing.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes the generation durable in state `queued`, with its first event.
    ///
    /// # Errors
    /// [`StoreError::QueueFull`] where `max_queued` generations wait already.
    async fn accept(&self, id: GenerationId, generation: &Generation, max_queued: usize) -> Result<Record, StoreError>;

    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// A page of records, newest first. Unreadable rows are passed over, as in every method that looks at many.
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError>;

    /// Takes up to `limit` queued generations, oldest first, for this worker: each becomes `running`, its attempt and
    /// fence grow by one. Those that wait for the delay of a [`Outcome::Retry`] are not taken, nor those whose
    /// `start_timeout_s` has passed.
    async fn claim(&self, limit: usize) -> Result<Vec<(Record, Lease)>, StoreError>;

    /// Ends a run. Returns the record, or `None` where the lease is no longer the generation's: then nothing changed
    /// and the outcome must be thrown away. A generation whose client has asked to cancel it is not queued again but
    /// canceled.
    async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Option<Record>, StoreError>;

    /// Cancels: a queued generation at once, a running one by a mark that its worker obeys before the next step; a
    /// finished one is returned unchanged. `None`: there is no such generation.
    async fn cancel(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// Erases a finished generation with its events; the caller erases the blobs of the returned record.
    ///
    /// # Errors
    /// [`StoreError::NotFinished`].
    async fn delete(&self, id: GenerationId) -> Result<Option<Record>, StoreError>;

    /// The events after `seq`, in order. Empty for an unknown generation.
    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError>;

    /// Queues every running generation again, as a process must that finds them at its start (their attempt stays
    /// counted). Those whose attempts are spent fail with `worker_crashed`, those whose client has asked for it are
    /// canceled. Returns how many were queued.
    async fn requeue_running(&self, max_attempts: u32) -> Result<usize, StoreError>;

    /// A generation whose request brought along the picture with this SHA-256, if one is kept; the newest of several.
    async fn find_input(&self, sha256: &str) -> Result<Option<GenerationId>, StoreError>;

    /// Expires queued generations whose `start_timeout_s` has passed before they were claimed for the first time;
    /// returns them. One that began once and came back to the queue never expires.
    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError>;

    /// Finished generations whose retention has ended, at most `limit`, for the sweeper to delete.
    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// How many generations wait and run.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// How many queued generations are before this one; `None` where it is not queued.
    async fn position(&self, id: GenerationId) -> Result<Option<usize>, StoreError>;

    /// Reads and writes nothing but proves that the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// The right to write the outcome of one attempt of one generation; spent by [`Store::finish`]. A clone is for trying
/// again where the store did not answer: the fence lets only one of them count.
#[derive(Clone, Debug)]
pub struct Lease {
    pub(in crate::ledger) id: GenerationId,
    pub(in crate::ledger) fence: i64,
}

impl Lease {
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// Names this attempt in blob paths, so that a late loser never overwrites the winner's pictures.
    pub fn fence(&self) -> i64 {
        self.fence
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Succeeded(Vec<Image>),
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
    #[error("the generation is not finished")]
    NotFinished,
    #[error("another process uses {path}")]
    Locked { path: std::path::PathBuf },
    #[error("the disk is full")]
    StorageFull,
    #[error("the database failed: {0}")]
    Database(#[source] sqlx::Error),
    #[error("the database's schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("a stored {what} of {id} cannot be read: {detail}")]
    Corrupt { id: GenerationId, what: &'static str, detail: String },
    #[error("{0}")]
    Io(#[source] std::io::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) => error.into(),
            sqlx::Error::Database(error) if sqlite::is_full(error.as_ref()) => StoreError::StorageFull,
            error => StoreError::Database(error),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        if blobs::is_full(&error) { StoreError::StorageFull } else { StoreError::Io(error) }
    }
}
