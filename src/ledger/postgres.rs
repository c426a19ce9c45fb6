//! The store of many processes: a PostgreSQL database.
//!
//! Transactions are READ COMMITTED and lock what they decide by: whoever accepts holds the queue's clock, whoever changes a
//! generation holds its row. Locks are taken in one order (claims, generations, clock, tenants) and rows that another one holds are
//! passed over wherever many are looked at, so that nobody waits in a circle. Times are the database's.

mod hints;
mod pool;
mod row;
mod schema;

use std::{io, time::Duration};

use futures::stream::BoxStream;
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool, postgres::PgRow};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{
    Hint, Ledger, StoreError,
    dialect::{Dialect, Value},
};
use crate::config;
use pool::Loan;

/// Hints that a slow listener may be behind; older ones are lost to it.
const HINTS: usize = 1024;

/// How often a transaction is tried that another one was in the way of.
const TRIES: u32 = 4;

/// The planner knows the queue as it was when statistics were last taken, often empty: left to itself it sorts what a claim
/// takes for a few rows, all of the queue.
const BEGIN_WALKING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL enable_sort = off";

pub type PgStore = Ledger<Postgres>;

/// The connections to one database.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: PgPool,
    /// No call takes longer.
    timeout: Duration,
    heard: broadcast::Sender<Hint>,
}

impl PgStore {
    /// Connects to the database, and brings its schema up to date where the settings say so. Finished generations are due for
    /// deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooOld`] where the schema is older than this program and may not be changed.
    pub async fn open(settings: &config::Database, retention: Duration) -> Result<PgStore, StoreError> {
        let (timeout, pool) = (settings.timeout_s.into(), pool::open(settings)?);
        let db = Postgres { pool, timeout, heard: broadcast::channel(HINTS).0 };
        match db.bounded(|| db.ping()).await {
            Err(StoreError::SchemaTooOld { .. }) if settings.migrate => {
                PgStore::migrate(settings).await?;
                db.bounded(|| db.ping()).await?;
            }
            other => other?,
        }
        Ok(Ledger { db, retention })
    }

    /// Brings the schema up to date; whoever comes second waits for whoever came first.
    pub async fn migrate(settings: &config::Database) -> Result<(), StoreError> {
        schema::migrate(settings).await
    }

    /// Hears the hints of other processes until `stop`; without it [`Fleet::hints`](super::Fleet::hints) is silent.
    pub async fn listen(self, stop: CancellationToken) {
        stop.run_until_cancelled(hints::listen(&self.db)).await;
    }
}

impl Dialect for Postgres {
    type Row = PgRow;
    type Transaction = Loan;

    const IS_SHARED: bool = true;

    /// Whatever the network does: a connection whose answer nobody waits for any more is closed.
    async fn bounded<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send,
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

    async fn read(&self, text: &str, values: &[Value]) -> Result<Vec<PgRow>, StoreError> {
        self.write(text, values).await
    }

    async fn write(&self, text: &str, values: &[Value]) -> Result<Vec<PgRow>, StoreError> {
        let mut loan = self.lend().await?;
        let rows = run(&mut loan, text, values).await?;
        loan.give_back();
        Ok(rows)
    }

    async fn begin(&self, walks: bool) -> Result<Loan, StoreError> {
        let mut loan = self.lend().await?;
        loan.execute(if walks { BEGIN_WALKING } else { "BEGIN ISOLATION LEVEL READ COMMITTED" }).await?;
        Ok(loan)
    }

    async fn fetch(transaction: &mut Loan, text: &str, values: &[Value]) -> Result<Vec<PgRow>, StoreError> {
        run(transaction, text, values).await
    }

    async fn conclude(mut transaction: Loan, keeps: bool) -> Result<(), StoreError> {
        transaction.execute(if keeps { "COMMIT" } else { "ROLLBACK" }).await?;
        transaction.give_back();
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        schema::check(self).await
    }

    async fn hint(&self, hints: &[Hint]) -> Result<(), StoreError> {
        hints::send(self, hints).await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        hints::stream(self.heard.subscribe())
    }
}

async fn run(connection: &mut PgConnection, text: &str, values: &[Value]) -> Result<Vec<PgRow>, StoreError> {
    let (text, arguments) = (row::translate(text), row::arguments(values)?);
    Ok(sqlx::query_with(AssertSqlSafe(text), arguments).fetch_all(connection).await?)
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

#[cfg(test)]
mod tests;
