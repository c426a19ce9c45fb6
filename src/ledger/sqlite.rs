//! The store of one process: a SQLite file.
//!
//! Writes queue for one connection and run under `BEGIN IMMEDIATE`, one transaction a change; reads have connections of
//! their own and see the last commit (WAL). `synchronous = FULL`: what was committed survives a power cut.

mod clock;
mod folder;
mod words;

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

use super::{
    Ledger, Result,
    dialect::{self, Dialect, Hints, Value},
    row::Row,
};

pub use clock::{Clock, Reading};

/// The connections to one file.
#[derive(Debug)]
pub struct Sqlite {
    /// The one connection that writes.
    writer: SqlitePool,
    readers: SqlitePool,
    clock: Clock,
    /// Keeps other processes out.
    _lock: File,
}

/// A write transaction. Dropped, sqlx sends a ROLLBACK before the connection is lent again.
pub struct Transaction {
    inner: sqlx::Transaction<'static, sqlx::Sqlite>,
    /// The time of everything this transaction writes.
    now: i64,
}

impl Ledger {
    /// Opens the SQLite file in a folder, which is created where it is missing, and brings its schema up to date. Finished
    /// generations are due for deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::Locked`](super::StoreError::Locked) where another ledger has the folder open, in this process or another.
    pub async fn open_sqlite(data_dir: &Path, retention: Duration) -> Result<Ledger> {
        Ledger::open_sqlite_by(Clock::system(), data_dir, retention).await
    }

    /// As [`Ledger::open_sqlite`], by another clock.
    ///
    /// # Errors
    /// [`StoreError::Locked`](super::StoreError::Locked).
    pub async fn open_sqlite_by(clock: Clock, data_dir: &Path, retention: Duration) -> Result<Ledger> {
        let lock = folder::lock(data_dir).await?;
        let options = folder::options(data_dir);
        let writer = folder::writer(options.clone()).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let db = Sqlite { writer, readers: folder::readers(options), clock, _lock: lock };
        clock::settle(&db).await?;
        Ok(Ledger { db: Arc::new(db), timeout: None, retention })
    }
}

impl Hints for Sqlite {}

#[async_trait]
impl Dialect for Sqlite {
    fn is_shared(&self) -> bool {
        false
    }

    async fn read(&self, text: &str, values: &[Value]) -> Result<Vec<Row>> {
        run(&mut *self.readers.acquire().await?, text, values, self.clock.now_ms()).await
    }

    async fn write(&self, text: &str, values: &[Value]) -> Result<Vec<Row>> {
        let mut writer = self.writer.acquire().await?;
        run(&mut writer, text, values, self.clock.now_ms()).await
    }

    /// `IMMEDIATE`, since a transaction that began as a reader could be refused when it comes to write.
    async fn begin(&self, _walks: bool) -> Result<Box<dyn dialect::Transaction>> {
        let inner = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Box::new(Transaction { inner, now: self.clock.now_ms() }))
    }

    async fn ping(&self) -> Result<()> {
        self.read("SELECT 1 FROM generations LIMIT 1", &[]).await.map(drop)
    }
}

#[async_trait]
impl dialect::Transaction for Transaction {
    async fn fetch(&mut self, text: &str, values: &[Value]) -> Result<Vec<Row>> {
        run(&mut self.inner, text, values, self.now).await
    }

    async fn conclude(self: Box<Self>, keeps: bool) -> Result<()> {
        Ok(if keeps { self.inner.commit().await } else { self.inner.rollback().await }?)
    }
}

async fn run(connection: &mut SqliteConnection, text: &str, values: &[Value], now: i64) -> Result<Vec<Row>> {
    let (text, arguments) = words::translate(text, values, now)?;
    let rows = sqlx::query_with(AssertSqlSafe(text), arguments).fetch_all(connection).await?;
    Row::all(&rows, words::cell)
}

/// SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: the index of the WAL could not be made larger.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    let is_ours = error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
    let code = error.code().filter(|_| is_ours).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 13 || code == 10 | 19 << 8)
}
