//! Opens the ledger that the settings choose (SQLite or PostgreSQL), and writes the address of the server's operator
//! listener to a file, which commands read.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::crashes;
use crate::{
    config::{self, Config},
    ledger::{Ledger, Reaping, Store, StoreError, Upkeep},
};

/// Opens the ledger for a server. With PostgreSQL, listens until `stop` for notifications of other processes. With
/// SQLite, puts the generations that a stopped process left running back into the queue.
pub(super) async fn start_store(
    config: &Config,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Arc<dyn Store>> {
    if !config.database.url.is_empty() {
        let store = open_pg(config).await.context("database.url")?;
        tasks.spawn(store.clone().listen(stop.clone()));
        let store = Arc::new(store);
        if config.role.works() {
            crashes::settle(&config.data_dir, &*store).await?;
        }
        return Ok(store);
    }
    let store = open_sqlite(config).await.with_context(|| format!("data_dir {}", config.data_dir.display()))?;
    crashes::settle(&config.data_dir, &store).await?;
    let requeued = store.reap(&reaping(&config.queue, true)).await?.queued.len();
    if requeued > 0 {
        tracing::info!(requeued, "generations that a stopped process had begun are queued again");
    }
    Ok(Arc::new(store))
}

/// Opens the ledger that the settings choose, for a server or a command.
///
/// # Errors
/// [`StoreError::Locked`] if another process uses the SQLite file, or any other error of the store.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(if config.database.url.is_empty() { open_sqlite(config).await? } else { open_pg(config).await? }))
}

async fn open_pg(config: &Config) -> Result<Ledger, StoreError> {
    Ledger::open_postgres(&config.database, config.retention.finished_s.into()).await
}

async fn open_sqlite(config: &Config) -> Result<Ledger, StoreError> {
    Ledger::open_sqlite(&config.data_dir, config.retention.finished_s.into()).await
}

/// With SQLite, writes the address of the operator listener into the data folder, for commands that find the folder in
/// use.
pub(super) fn announce(config: &Config, operator: SocketAddr) -> Result<()> {
    if !config.database.url.is_empty() {
        return Ok(());
    }
    let path = config.data_dir.join(OPERATOR);
    std::fs::write(&path, operator.to_string()).with_context(|| format!("{} cannot be written", path.display()))
}

/// The operator listener of the server that uses the data folder: the address that the server has written, otherwise
/// the one in these settings.
pub fn operator_beside(config: &Config) -> SocketAddr {
    let said = std::fs::read_to_string(config.data_dir.join(OPERATOR)).ok();
    said.and_then(|address| address.trim().parse().ok()).unwrap_or(config.operator.bind)
}

/// The file in the data folder with the address of the server's operator listener.
const OPERATOR: &str = "latentd.operator";

/// Updates the schema of the database that the settings choose.
///
/// # Errors
/// The database does not answer, or another process uses the data folder.
pub async fn migrate(config: &Config) -> Result<()> {
    if !config.database.url.is_empty() {
        return Ledger::migrate_postgres(&config.database).await.context("database.url");
    }
    open_sqlite(config).await.map(drop).with_context(|| format!("data_dir {}", config.data_dir.display()))
}

/// How generations of ended processes are taken back. With `all`, every running generation is taken back.
pub(super) fn reaping(queue: &config::Queue, all: bool) -> Reaping {
    Reaping { all, max_crashes: queue.max_crashes, backoff: queue.backoff_s.into() }
}
