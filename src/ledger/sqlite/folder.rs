//! The folder of the store: its lock, and the connections to the database in it.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
    time::{Duration, Instant},
};

use sqlx::{
    Connection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::ledger::{Result, StoreError};

/// Number of reading connections: few, because reads are short and the cores of the machine belong to the engine.
const READERS: u32 = 4;

/// The name of the database's file.
pub const FILE: &str = "latentd.db";

/// How long the previous owner of a folder may take to release it.
const GRACE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Locks the folder for this process. The lock belongs to the open file, so it ends even if the process is killed.
///
/// The system keeps a lock until the last descriptor of its file is closed, so the lock can outlive its owner a little:
/// in a process that is being torn down, or in a child between fork and exec. A quick restart waits up to [`GRACE`].
pub async fn lock(data_dir: &Path) -> Result<File> {
    fs::create_dir_all(data_dir)?;
    let path = data_dir.join("latentd.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    let given_up = Instant::now() + GRACE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < given_up => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: data_dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

pub fn options(data_dir: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(data_dir.join(FILE))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
}

pub async fn writer(options: SqliteConnectOptions) -> Result<SqlitePool> {
    Ok(SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        // If the disk is full, SQLite itself rolls a commit back. sqlx's own ROLLBACK then fails, and sqlx believes
        // that the transaction is still open, so no other transaction could begin. Such a connection is replaced.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await?)
}

pub fn readers(options: SqliteConnectOptions) -> SqlitePool {
    // Not `read_only`: such a connection could not create missing files of the WAL.
    SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "on"))
}
