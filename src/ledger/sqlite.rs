//! A SQLite file, the store of one process.
//!
//! Writes share one connection; each change is a transaction that begins with `BEGIN IMMEDIATE`. Reads have connections
//! of their own and see the last commit (WAL). With `synchronous = FULL`, commits survive a power failure.

mod clock;
mod folder;
mod words;

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool, migrate::Migrator};

use super::{
    Ledger, Result,
    dialect::{self, Dialect, Hints, Value},
    migrations,
    row::Row,
};

pub use clock::{Clock, Reading};
pub(super) use folder::FILE;

/// The connections to one file.
#[derive(Debug)]
pub struct Sqlite {
    /// The one connection that writes.
    writer: SqlitePool,
    readers: SqlitePool,
    clock: Clock,
    /// Keeps other processes from opening the folder.
    _lock: File,
}

/// A write transaction. If it is dropped, sqlx sends ROLLBACK before it lends the connection again.
pub struct Transaction {
    inner: sqlx::Transaction<'static, sqlx::Sqlite>,
    /// The time of everything this transaction writes.
    now: i64,
}

impl Ledger {
    /// Opens the SQLite file in a folder, which is created if it is missing, and brings its schema up to date. Finished
    /// generations are due for deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::Locked`](super::StoreError::Locked) if a ledger of any process has the folder open.
    pub async fn open_sqlite(data_dir: &Path, retention: Duration) -> Result<Ledger> {
        Ledger::open_sqlite_by(Clock::system(), data_dir, retention).await
    }

    /// Like [`Ledger::open_sqlite`], with this clock instead of the system's.
    ///
    /// # Errors
    /// [`StoreError::Locked`](super::StoreError::Locked).
    pub async fn open_sqlite_by(clock: Clock, data_dir: &Path, retention: Duration) -> Result<Ledger> {
        let lock = folder::lock(data_dir).await?;
        let options = folder::options(data_dir);
        let writer = folder::writer(options.clone()).await?;
        migrator().run(&writer).await?;
        let db = Sqlite { writer, readers: folder::readers(options), clock, _lock: lock };
        clock::settle(&db).await?;
        Ok(Ledger { db: Arc::new(db), timeout: None, retention })
    }
}

/// The migrations. A newer schema is an error.
pub(super) fn migrator() -> Migrator {
    migrations::migrator::<migrations::OfSqlite>()
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

    /// Begins with `IMMEDIATE`, because a transaction that begins as a reader could be refused when it writes.
    async fn begin(&self, _walks: bool) -> Result<Box<dyn dialect::Transaction>> {
        let inner = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Box::new(Transaction { inner, now: self.clock.now_ms() }))
    }

    fn connections(&self) -> (usize, usize) {
        let (writer, readers) = (dialect::connections(&self.writer), dialect::connections(&self.readers));
        (writer.0 + readers.0, writer.1 + readers.1)
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

/// Whether the disk is full: SQLITE_FULL, or SQLITE_IOERR_SHMSIZE (the index of the WAL could not grow).
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    let is_ours = error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
    let code = error.code().filter(|_| is_ours).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 13 || code == 10 | 19 << 8)
}
