//! The durable store: generations with their events and artifacts, API keys, and webhooks.
//!
//! The state in memory, such as the progress of a run, can be lost without losing a generation. An accepted generation
//! is durable and reaches exactly one final state; it may run more than once, but its result appears once.
//!
//! The methods of `Change` define each change of state once for both databases; `Dialect` contains their differences. A
//! role (a group of methods for one kind of user) is a trait that documents and implements its methods in one place.

mod accepting;
pub mod blobs;
mod change;
mod claiming;
mod dialect;
mod endpoints;
mod estimates;
mod fleet;
mod inspection;
mod keys;
mod migrations;
mod outgoing;
mod postgres;
mod queue;
mod reading;
mod record;
mod reports;
mod row;
mod sqlite;
mod upkeep;
mod usage;
mod webhooks;
mod workers;

use std::{io, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::generation::{Artifact, Exceeded, GenerationId, Problem, Record, WorkKind};

pub use accepting::Accepts;
pub use blobs::{BlobError, Blobs};
pub use claiming::Claims;
use dialect::{Dialect, Value};
pub use endpoints::Webhooks;
pub use estimates::{Census, Estimates, Measured};
pub use fleet::Fleet;
pub use inspection::Inspection;
pub use keys::{KeyQuery, KeyRecord, Keys, StoredKey};
pub use queue::{
    Acceptance, Accepted, Claimant, Crew, Fingerprint, Newcomer, QueuePosition, Reaped, Reaping, Renewed, Workload,
};
pub use reading::Reads;
use row::Row;
pub use sqlite::{Clock, Reading};
pub use upkeep::Upkeep;
pub use usage::{Usage, UsageOfDay, Usages};
pub use webhooks::{ClaimedDelivery, DeliveryAnswer, DeliveryClaim, NewEndpoint, Next};
pub use workers::{Heartbeat, Hint, Report, Snapshot, WorkerRecord};

/// A handle to a store; clones share its connections. Users take the roles that they need: [`Accepts`], [`Reads`],
/// [`Claims`], [`Upkeep`], [`Fleet`], [`Estimates`], [`Keys`], [`Usages`] and [`Webhooks`].
#[derive(Clone, Debug)]
pub struct Ledger {
    db: Arc<dyn Dialect>,
    /// Longest duration of an operation; `None` for a SQLite file, which answers or fails by itself.
    timeout: Option<Duration>,
    /// How long a finished generation is kept.
    retention: Duration,
}

/// All roles.
pub trait Store: Serving + WorkerStore + Sweeping + Webhooks {}
impl<S: Serving + WorkerStore + Sweeping + Webhooks> Store for S {}

/// The roles that the service needs.
pub trait Serving: Accepts + Reads + Fleet + Keys + Usages {}
impl<S: Accepts + Reads + Fleet + Keys + Usages> Serving for S {}

/// The roles that a worker needs.
pub trait WorkerStore: Claims + Reads + Fleet + Estimates {}
impl<S: Claims + Reads + Fleet + Estimates> WorkerStore for S {}

/// The roles that the sweeper needs.
pub trait Sweeping: Upkeep + Accepts + Reads + Fleet + Estimates {}
impl<S: Upkeep + Accepts + Reads + Fleet + Estimates> Sweeping for S {}

impl Accepts for Ledger {}
impl Reads for Ledger {}
impl Claims for Ledger {}
impl Upkeep for Ledger {}
impl Fleet for Ledger {}
impl Estimates for Ledger {}
impl Keys for Ledger {}
impl Usages for Ledger {}
impl Webhooks for Ledger {}

/// How many times an operation is tried if it conflicts with other operations, and the pause before the first retry.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(20);

impl Ledger {
    /// Receives hints of other processes until `stop`. [`Fleet::hints`] yields nothing while this does not run.
    pub async fn listen(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.db.listen()).await;
    }

    /// Repeats `call` if it conflicts with other operations, and gives up after the timeout, even if the network hangs.
    async fn bounded<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let tries = async {
            for tried in 1..TRIES {
                match call().await {
                    Err(error) if error.is_conflict() => tokio::time::sleep(jittered(PAUSE * tried)).await,
                    done => return done,
                }
            }
            call().await
        };
        let Some(timeout) = self.timeout else { return tries.await };
        match tokio::time::timeout(timeout, tries).await {
            Ok(Err(StoreError::Io(error))) => Err(StoreError::Database(sqlx::Error::Io(error))),
            Ok(done) => done,
            Err(_) => {
                let detail = format!("no answer within {} s", timeout.as_secs_f64());
                Err(StoreError::Database(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, detail))))
            }
        }
    }

    async fn read(&self, text: &str, values: Vec<Value>) -> Result<Vec<Row>> {
        self.bounded(|| self.db.read(text, &values)).await
    }

    async fn read_one(&self, text: &str, values: Vec<Value>) -> Result<Row> {
        Ok(self.read(text, values).await?.pop().ok_or(sqlx::Error::RowNotFound)?)
    }

    async fn write(&self, text: &str, values: Vec<Value>) -> Result<Vec<Row>> {
        self.bounded(|| self.db.write(text, &values)).await
    }
}

impl AsRef<Ledger> for Ledger {
    fn as_ref(&self) -> &Ledger {
        self
    }
}

/// A random time between half of `pause` and all of it, so that callers that failed together do not retry together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(crate::jitter::between(0.5, 1.0))
}

/// The right to write the outcome of one attempt while the lease is renewed; [`Claims::finish`] uses it up. Clone it to
/// call `finish` again if the store did not answer: at most one of the two calls takes effect.
#[derive(Clone, Debug)]
pub struct Lease {
    pub(in crate::ledger) id: GenerationId,
    pub(in crate::ledger) fence: i64,
}

impl Lease {
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// Grows with each claim, never falls. Blob paths contain it, so that attempts never overwrite each other's files.
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
    /// The run stopped before its end: the generation returns to the queue. The attempt is not counted.
    Released,
    /// A transient failure: the generation is queued again, to be claimed after `delay`. The attempt is counted.
    Retry {
        problem: Problem,
        delay: Duration,
    },
    /// The device of the run was lost while it computed for this generation. This counts as a crash, not as an attempt.
    /// The generation returns to the queue. After `max_crashes` crashes, it fails with `problem` and is marked dead.
    DeviceLost {
        problem: Problem,
        max_crashes: u32,
    },
}

/// Filters of a list of generations.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// The maximum number of records of the page, 1..=100.
    pub limit: usize,
    /// Only generations older than this one.
    pub after: Option<GenerationId>,
    /// Only generations newer than this one. Without `after`, the page has the `limit` oldest of them, newest first.
    pub before: Option<GenerationId>,
    /// Only this status, a word of [`Status::as_str`](crate::generation::Status::as_str).
    pub status: Option<String>,
    pub model: Option<String>,
    /// Only generations of this tenant.
    pub tenant: Option<String>,
    /// Only dead generations, which were given up after crashes.
    pub dead: bool,
    /// Only generations with a star, or without one.
    pub starred: Option<bool>,
    /// Only generations whose work is of this kind.
    pub kind: Option<WorkKind>,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T = Record> {
    pub records: Vec<T>,
    /// Whether more records match beyond this page.
    pub has_more: bool,
}

/// Numbers of generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub queued: usize,
    pub running: usize,
}

/// Why the store refuses a change and makes no part of it. Some refusals are temporary, such as [`Refusal::QueueFull`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("{queued} generations wait already")]
    QueueFull { queued: usize },
    #[error("{queued} generations of this tenant wait already")]
    TenantQueueFull { queued: usize },
    #[error(transparent)]
    LimitReached(#[from] Exceeded),
    #[error("the API key was revoked or has expired")]
    KeyEnded,
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("another generation has the id")]
    IdTaken,
    #[error("the generation is not finished")]
    NotFinished,
    #[error("the generation has not succeeded")]
    NotSucceeded,
    #[error("{most} generations of this tenant have stars already")]
    StarsFull { most: usize },
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("another process uses {path}")]
    Locked { path: std::path::PathBuf },
    #[error("the disk is full")]
    StorageFull,
    /// It is unknown whether the change was made.
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

impl StoreError {
    /// Whether this is a serialization failure or a deadlock: nothing was done, and a retry may succeed.
    fn is_conflict(&self) -> bool {
        let StoreError::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| ["40001", "40P01"].contains(&&*code))
    }
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
