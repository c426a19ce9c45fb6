//! The store of many processes: a PostgreSQL database.
//!
//! Transactions are READ COMMITTED and lock what they decide by: whoever accepts holds the queue's clock, whoever changes a
//! generation holds its row. Locks are taken in one order (claims, generations, clock, tenants) and rows that another one holds are
//! passed over wherever many are looked at, so that nobody waits in a circle. Times are the database's.

mod hints;
mod pool;
mod schema;
mod words;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool};
use tokio::sync::broadcast;

use super::{
    Hint, Ledger, Reads, Result, StoreError,
    dialect::{Dialect, Transaction, Value},
    row::Row,
};
use crate::config;
use pool::Loan;

/// Hints that a slow listener may be behind; older ones are lost to it.
const HINTS: usize = 1024;

/// The planner knows the queue as it was when statistics were last taken, often empty: left to itself it sorts what a claim
/// takes for a few rows, all of the queue.
const BEGIN_WALKING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL enable_sort = off";

/// The connections to one database.
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
    /// No call takes longer.
    timeout: Duration,
    heard: broadcast::Sender<Hint>,
}

impl Ledger {
    /// Connects to the database, and brings its schema up to date where the settings say so. Finished generations are due for
    /// deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooOld`] where the schema is older than this program and may not be changed.
    pub async fn open_postgres(settings: &config::Database, retention: Duration) -> Result<Ledger> {
        let (timeout, pool) = (settings.timeout_s.into(), pool::open(settings)?);
        let db = Arc::new(Postgres { pool, timeout, heard: broadcast::channel(HINTS).0 });
        let ledger = Ledger { db, timeout: Some(timeout), retention };
        match ledger.ping().await {
            Err(StoreError::SchemaTooOld { .. }) if settings.migrate => {
                Ledger::migrate_postgres(settings).await?;
                ledger.ping().await?;
            }
            other => other?,
        }
        Ok(ledger)
    }
}

/// A connection whose answer nobody waits for any more is closed.
#[async_trait]
impl Dialect for Postgres {
    fn is_shared(&self) -> bool {
        true
    }

    async fn write(&self, text: &str, values: &[Value]) -> Result<Vec<Row>> {
        let mut loan = Loan::of(&self.pool).await?;
        let rows = run(&mut loan.connection, text, values).await?;
        loan.give_back();
        Ok(rows)
    }

    async fn begin(&self, walks: bool) -> Result<Box<dyn Transaction>> {
        let mut loan = Loan::of(&self.pool).await?;
        loan.connection.execute(if walks { BEGIN_WALKING } else { "BEGIN ISOLATION LEVEL READ COMMITTED" }).await?;
        Ok(Box::new(loan))
    }

    async fn ping(&self) -> Result<()> {
        schema::check(self).await
    }
}

#[async_trait]
impl Transaction for Loan {
    async fn fetch(&mut self, text: &str, values: &[Value]) -> Result<Vec<Row>> {
        run(&mut self.connection, text, values).await
    }

    async fn conclude(mut self: Box<Self>, keeps: bool) -> Result<()> {
        self.connection.execute(if keeps { "COMMIT" } else { "ROLLBACK" }).await?;
        self.give_back();
        Ok(())
    }
}

async fn run(connection: &mut PgConnection, text: &str, values: &[Value]) -> Result<Vec<Row>> {
    let (text, arguments) = (words::translate(text), words::arguments(values)?);
    let rows = sqlx::query_with(AssertSqlSafe(text), arguments).fetch_all(connection).await?;
    Row::all(&rows, words::cell)
}

/// The server's disk has no room.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("53100")
}
