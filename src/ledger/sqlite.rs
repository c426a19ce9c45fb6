//! The store of one process: a SQLite file.
//!
//! Writes queue for one connection and run under `BEGIN IMMEDIATE`, one transaction a change; reads have connections of
//! their own and see the last commit (WAL). `synchronous = FULL`: what was committed survives a power cut.

mod clock;
mod folder;
mod row;
mod words;

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    Hint, Ledger, StoreError,
    dialect::{Dialect, Value},
};

pub use clock::{Clock, Reading};

pub type SqliteStore = Ledger<Sqlite>;

/// The connections to one file.
#[derive(Clone, Debug)]
pub struct Sqlite {
    /// The one connection that writes.
    writer: SqlitePool,
    readers: SqlitePool,
    clock: Clock,
    /// Keeps other processes out for as long as any clone lives.
    _lock: Arc<File>,
}

/// A write transaction. Dropped, sqlx sends a ROLLBACK before the connection is lent again.
pub struct Transaction {
    inner: sqlx::Transaction<'static, sqlx::Sqlite>,
    /// The time of everything this transaction writes.
    now: i64,
}

impl SqliteStore {
    /// Opens the store in a folder, which is created where it is missing, and brings its schema up to date. Finished
    /// generations are due for deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where another store has the folder open, in this process or another.
    pub async fn open(data_dir: &Path, retention: Duration) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_by(Clock::system(), data_dir, retention).await
    }

    /// As [`SqliteStore::open`], by another clock.
    ///
    /// # Errors
    /// [`StoreError::Locked`].
    pub async fn open_by(clock: Clock, data_dir: &Path, retention: Duration) -> Result<SqliteStore, StoreError> {
        let lock = folder::lock(data_dir).await?;
        let options = folder::options(data_dir);
        let writer = folder::writer(options.clone()).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let readers = folder::readers(options);
        let db = Sqlite { writer, readers, clock, _lock: Arc::new(lock) };
        clock::settle(&db).await?;
        Ok(Ledger { db, retention })
    }
}

impl Dialect for Sqlite {
    type Row = SqliteRow;
    type Transaction = Transaction;

    const IS_SHARED: bool = false;

    /// A file answers or fails by itself.
    async fn bounded<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        call().await
    }

    async fn read(&self, text: &str, values: &[Value]) -> Result<Vec<SqliteRow>, StoreError> {
        run(&mut *self.readers.acquire().await?, text, values, self.clock.now_ms()).await
    }

    async fn write(&self, text: &str, values: &[Value]) -> Result<Vec<SqliteRow>, StoreError> {
        let mut writer = self.writer.acquire().await?;
        run(&mut writer, text, values, self.clock.now_ms()).await
    }

    /// `IMMEDIATE`, since a transaction that began as a reader could be refused when it comes to write.
    async fn begin(&self, _walks: bool) -> Result<Transaction, StoreError> {
        let inner = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Transaction { inner, now: self.clock.now_ms() })
    }

    async fn fetch(transaction: &mut Transaction, text: &str, values: &[Value]) -> Result<Vec<SqliteRow>, StoreError> {
        run(&mut transaction.inner, text, values, transaction.now).await
    }

    async fn conclude(transaction: Transaction, keeps: bool) -> Result<(), StoreError> {
        let inner = transaction.inner;
        Ok(if keeps { inner.commit().await } else { inner.rollback().await }?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read("SELECT 1 FROM generations LIMIT 1", &[]).await.map(drop)
    }

    /// Nobody else is there to hear them.
    async fn hint(&self, _: &[Hint]) -> Result<(), StoreError> {
        Ok(())
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        futures::stream::pending().boxed()
    }
}

async fn run(
    connection: &mut SqliteConnection,
    text: &str,
    values: &[Value],
    now: i64,
) -> Result<Vec<SqliteRow>, StoreError> {
    let (text, arguments) = words::translate(text, values, now)?;
    Ok(sqlx::query_with(AssertSqlSafe(text), arguments).fetch_all(connection).await?)
}

/// SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: the index of the WAL could not be made larger.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_none() {
        return false;
    }
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 13 || code == 10 | 19 << 8)
}

#[cfg(test)]
mod tests;
