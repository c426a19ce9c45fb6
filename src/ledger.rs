//! What must survive: generations, their events, their artifacts.
//!
//! The ledger is the truth. What lives in memory (step 12 of 30) can be lost without losing a generation; what the
//! ledger has accepted is durable, reaches exactly one final state, may run more than once and appears once.
//!
//! What a change of state is, is decided once, by the methods of `Change`; what the two databases differ in is
//! `Dialect`.

mod accepting;
pub mod blobs;
mod change;
mod claiming;
mod dialect;
mod endpoints;
mod fleet;
mod outgoing;
pub mod postgres;
mod queue;
mod reading;
mod record;
mod reports;
mod roles;
pub mod sqlite;
mod upkeep;
mod webhooks;
mod workers;

use std::time::Duration;

use crate::generation::{Artifact, GenerationId, Problem, Record};

pub use blobs::{BlobError, Blobs};
use dialect::{Dialect, Value};
pub use postgres::PgStore;
pub use queue::{Acceptance, Accepted, Claimant, Fingerprint, Place, Reaped, Reaping, Renewed, Workload};
pub use roles::{Accepts, Claims, Fleet, Keys, Reads, Serving, Store, Sweeping, Upkeep, Webhooks, Working};
pub use sqlite::{Clock, Reading, SqliteStore};
pub use webhooks::{
    Answer, ClaimedDelivery, Delivery, DeliveryClaim, DeliveryPage, DeliveryState, Endpoint, EndpointTerms,
    NewEndpoint, Next,
};
pub use workers::{Beat, Glance, Hint, KeyRecord, Orders, Report, WorkerRecord};

/// A handle to a store; clones share its connections.
#[derive(Clone, Debug)]
pub struct Ledger<D> {
    db: D,
    /// How long a finished generation is kept.
    retention: Duration,
}

impl<D: Dialect> Ledger<D> {
    async fn read(&self, text: &str, values: Vec<Value>) -> Result<Vec<D::Row>, StoreError> {
        self.db.bounded(|| self.db.read(text, &values)).await
    }

    async fn read_first(&self, text: &str, values: Vec<Value>) -> Result<Option<D::Row>, StoreError> {
        Ok(self.read(text, values).await?.into_iter().next())
    }

    async fn read_one(&self, text: &str, values: Vec<Value>) -> Result<D::Row, StoreError> {
        Ok(self.read_first(text, values).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    async fn write(&self, text: &str, values: Vec<Value>) -> Result<Vec<D::Row>, StoreError> {
        self.db.bounded(|| self.db.write(text, &values)).await
    }
}

/// The right to write the outcome of one attempt of one generation, for as long as it is renewed; spent by
/// [`Claims::finish`]. A clone is for trying again where the store did not answer: the fence lets only one of them count.
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

/// Why a store does not do what it is asked for: it has changed nothing, and would refuse the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
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
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Refused(#[from] Refusal),
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
