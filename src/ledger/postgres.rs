//! The store of many processes: a PostgreSQL database.
//!
//! Transactions are READ COMMITTED and lock what they decide by: whoever accepts holds the queue's clock, whoever changes a
//! generation holds its row. Locks are taken in one order (claims, generations, clock, tenants) and rows that another one holds are
//! passed over wherever many are looked at, so that nobody waits in a circle. Times are the database's.

mod accepting;
mod change;
mod claiming;
mod ending;
mod hints;
mod pool;
mod queue;
mod reading;
mod reports;
mod row;
mod schema;
mod webhooks;
mod workers;

#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
mod cluster;

use std::{future::Future, io, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use sqlx::PgPool;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    crash::Attempt,
    generation::{Event, GenerationId, Preview, Record},
};

use super::{
    Acceptance, Accepted, Beat, Claimant, Counts, Fingerprint, Glance, Hint, KeyRecord, Lease, ListQuery, Orders,
    Outcome, Page, Place, Reaped, Reaping, Renewed, Report, Store, StoreError, WorkerRecord, Workload,
};

/// Hints that a slow listener may be behind; older ones are lost to it.
const HINTS: usize = 1024;

/// How often a transaction is tried that another one was in the way of.
const TRIES: u32 = 4;

/// A handle to the store that processes share; clones share its connections.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: PgPool,
    /// No call takes longer.
    timeout: Duration,
    /// How long a finished generation is kept.
    retention: Duration,
    heard: broadcast::Sender<Hint>,
}

impl PgStore {
    /// Connects to the database, and brings its schema up to date where the settings say so. Finished generations are due for
    /// deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooOld`] where the schema is older than this program and may not be changed.
    pub async fn open(settings: &config::Database, retention: Duration) -> Result<PgStore, StoreError> {
        let timeout = settings.timeout_s.into();
        let pool = pool::open(settings)?;
        let store = PgStore { pool, timeout, retention, heard: broadcast::channel(HINTS).0 };
        match store.ping().await {
            Err(StoreError::SchemaTooOld { .. }) if settings.migrate => {
                PgStore::migrate(settings).await?;
                store.ping().await?;
            }
            other => other?,
        }
        Ok(store)
    }

    /// Brings the schema up to date; whoever comes second waits for whoever came first.
    pub async fn migrate(settings: &config::Database) -> Result<(), StoreError> {
        schema::migrate(settings).await
    }

    /// Hears the hints of other processes until `stop`; without it [`Store::hints`] is silent.
    pub async fn listen(self, stop: CancellationToken) {
        stop.run_until_cancelled(hints::listen(&self)).await;
    }

    /// Makes a call that others were in the way of again, and gives up when its time is over, whatever the network does: a
    /// connection whose answer nobody waits for any more is closed.
    async fn bounded<T, F>(&self, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let tries = async {
            for tried in 1..TRIES {
                match call().await {
                    Err(error) if is_conflict(&error) => tokio::time::sleep(pause(tried)).await,
                    done => return done,
                }
            }
            call().await
        };
        match tokio::time::timeout(self.timeout, tries).await {
            Ok(Err(StoreError::Io(error))) => Err(StoreError::Database(sqlx::Error::Io(error))),
            Ok(done) => done,
            Err(_) => {
                let detail = format!("no answer within {} s", self.timeout.as_secs_f64());
                Err(StoreError::Database(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, detail))))
            }
        }
    }
}

/// Serialization failures and deadlocks: nothing was done, and the same may succeed the next time.
fn is_conflict(error: &StoreError) -> bool {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return false };
    error.code().is_some_and(|code| ["40001", "40P01"].contains(&&*code))
}

/// A few milliseconds, other ones for each.
fn pause(tried: u32) -> Duration {
    let share = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    Duration::from_millis(20).mul_f64(share * f64::from(tried))
}

/// The server's disk has no room.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("53100")
}

#[async_trait]
impl Store for PgStore {
    async fn accept(&self, acceptance: &Acceptance<'_>) -> Result<Accepted, StoreError> {
        self.bounded(|| accepting::accept(self, acceptance)).await
    }

    async fn find_accepted(&self, tenant: &str, key: &str) -> Result<Option<(GenerationId, Fingerprint)>, StoreError> {
        self.bounded(|| accepting::find_accepted(self, tenant, key)).await
    }

    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        self.bounded(|| reading::get(self, id)).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.bounded(|| reading::list(self, query)).await
    }

    async fn claim(&self, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<(Record, Lease)>, StoreError> {
        self.bounded(|| claiming::claim(self, by, limit, idle)).await
    }

    async fn renew(&self, by: &Claimant, leases: &[Lease]) -> Result<Vec<Renewed>, StoreError> {
        self.bounded(|| queue::renew(self, by, leases)).await
    }

    async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Option<Record>, StoreError> {
        self.bounded(|| ending::finish(self, &lease, &outcome)).await
    }

    async fn reap(&self, reaping: &Reaping) -> Result<Reaped, StoreError> {
        self.bounded(|| queue::reap(self, reaping)).await
    }

    async fn condemn(&self, attempt: Attempt) -> Result<Option<Record>, StoreError> {
        self.bounded(|| queue::condemn(self, attempt)).await
    }

    async fn cancel(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        self.bounded(|| ending::cancel(self, id)).await
    }

    async fn revive(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        self.bounded(|| ending::revive(self, id)).await
    }

    async fn delete(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        self.bounded(|| ending::delete(self, id)).await
    }

    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError> {
        self.bounded(|| reading::events(self, id, after)).await
    }

    async fn find_input(&self, tenant: &str, sha256: &str) -> Result<Option<GenerationId>, StoreError> {
        self.bounded(|| reading::find_input(self, tenant, sha256)).await
    }

    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError> {
        self.bounded(|| queue::expire_overdue(self)).await
    }

    async fn age(&self, after: Duration) -> Result<(), StoreError> {
        self.bounded(|| queue::age(self, after)).await
    }

    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.bounded(|| reading::overdue_for_deletion(self, limit)).await
    }

    async fn purge(&self) -> Result<(), StoreError> {
        self.bounded(|| workers::purge(self)).await?;
        self.bounded(|| reports::purge(self)).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.bounded(|| reading::counts(self)).await
    }

    async fn counts_of(&self, tenant: &str) -> Result<Counts, StoreError> {
        self.bounded(|| reading::counts_of(self, tenant)).await
    }

    async fn workload(&self, lately: Duration, slots: usize) -> Result<Workload, StoreError> {
        self.bounded(|| reading::workload(self, lately, slots)).await
    }

    async fn place(&self, id: GenerationId) -> Result<Option<Place>, StoreError> {
        self.bounded(|| reading::place(self, id)).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn report(&self, reports: &[Report]) -> Result<(), StoreError> {
        self.bounded(|| reports::report(self, reports)).await
    }

    async fn glance(&self, ids: &[GenerationId]) -> Result<Vec<Glance>, StoreError> {
        self.bounded(|| reports::glance(self, ids)).await
    }

    async fn previews(&self, id: GenerationId) -> Result<Vec<Preview>, StoreError> {
        self.bounded(|| reports::previews(self, id)).await
    }

    async fn hint(&self, hints: &[Hint]) -> Result<(), StoreError> {
        self.bounded(|| hints::send(self, hints)).await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        hints::stream(self.heard.subscribe())
    }

    async fn beat(&self, beat: &Beat) -> Result<Orders, StoreError> {
        self.bounded(|| workers::beat(self, beat)).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.bounded(|| workers::workers(self)).await
    }

    async fn drain_worker(&self, worker: &str, drain: bool) -> Result<bool, StoreError> {
        self.bounded(|| workers::drain(self, worker, drain)).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.bounded(|| workers::leave(self, worker)).await
    }

    async fn create_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        self.bounded(|| workers::create_key(self, key)).await
    }

    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        self.bounded(|| workers::find_key(self, id)).await
    }

    async fn has_keys(&self) -> Result<bool, StoreError> {
        workers::has_keys(self).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.bounded(|| schema::check(self)).await
    }
}
