//! A PostgreSQL database, the store of many processes.
//!
//! Transactions are READ COMMITTED and lock the rows that they depend on: accepting locks the queue's clock, changing a
//! generation locks its row. Locks are taken in one order (claims, generations, clock, keys, tenants), and statements
//! that look at many rows skip locked ones, so there are no deadlocks. Times are the database's.

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
    dialect::{self, Dialect, Transaction, Value},
    row::Row,
};
use crate::config;
use pool::PooledConnection;
pub(super) use {pool::options, schema::migrator};

/// How many hints a listener may be behind. A slower listener loses the oldest hints.
const HINTS: usize = 1024;

/// PostgreSQL compiles a statement to machine code if the planner expects it to be expensive. Compiling takes a tenth
/// of a second, and every statement of the ledger reads few rows, so compiling is switched off. A pooler may give each
/// transaction another connection, so each transaction switches it off itself.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL jit = off";

/// The planner knows the queue from old statistics, in which the queue is often empty. Without `enable_sort = off`, the
/// planner would sort the whole queue to claim a few rows. A sort that cannot be avoided then seems very expensive.
const BEGIN_WALKING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL jit = off; SET LOCAL enable_sort = off";

/// The connections to one database.
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
    /// Longest duration of an operation.
    timeout: Duration,
    heard: broadcast::Sender<Hint>,
}

impl Ledger {
    /// Connects to the database, and brings its schema up to date if the settings allow it. Finished generations are
    /// due for deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooOld`] if the schema is older than this program and may not be changed.
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

/// If a future is dropped before the database has answered, its connection is closed.
#[async_trait]
impl Dialect for Postgres {
    fn is_shared(&self) -> bool {
        true
    }

    async fn write(&self, text: &str, values: &[Value]) -> Result<Vec<Row>> {
        let mut loan = PooledConnection::of(&self.pool).await?;
        let rows = run(&mut loan.connection, text, values).await?;
        loan.give_back();
        Ok(rows)
    }

    async fn begin(&self, walks: bool) -> Result<Box<dyn Transaction>> {
        let mut loan = PooledConnection::of(&self.pool).await?;
        loan.connection.execute(if walks { BEGIN_WALKING } else { BEGIN }).await?;
        Ok(Box::new(loan))
    }

    fn connections(&self) -> (usize, usize) {
        dialect::connections(&self.pool)
    }

    async fn ping(&self) -> Result<()> {
        schema::check(self).await
    }
}

#[async_trait]
impl Transaction for PooledConnection {
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

/// Whether the server's disk is full.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("53100")
}
