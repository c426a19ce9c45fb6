//! The store: opened, or brought up to date.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::crashes;
use crate::{
    config::{self, Config},
    ledger::{Ledger, Reaping, Store, StoreError, Upkeep},
};

/// The store that the settings name, for a server. Of one that other processes share the hints are heard until `stop`; in one
/// that they do not, what a stopped process had begun is queued again.
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

/// The store that the settings name.
///
/// # Errors
/// [`StoreError::Locked`] where it is a file that another process uses, and whatever else the store says.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(if config.database.url.is_empty() { open_sqlite(config).await? } else { open_pg(config).await? }))
}

async fn open_pg(config: &Config) -> Result<Ledger, StoreError> {
    Ledger::open_postgres(&config.database, config.retention.finished_s.into()).await
}

async fn open_sqlite(config: &Config) -> Result<Ledger, StoreError> {
    Ledger::open_sqlite(&config.data_dir, config.retention.finished_s.into()).await
}

/// Leaves the address of the operator's listener for those who find the data folder in use.
pub(super) fn announce(config: &Config, operator: SocketAddr) -> Result<()> {
    if !config.database.url.is_empty() {
        return Ok(());
    }
    let path = config.data_dir.join(OPERATOR);
    std::fs::write(&path, operator.to_string()).with_context(|| format!("{} cannot be written", path.display()))
}

/// The operator's listener of the server that uses the data folder of these settings, as it says itself, or else as they say.
pub fn operator_beside(config: &Config) -> SocketAddr {
    let said = std::fs::read_to_string(config.data_dir.join(OPERATOR)).ok();
    said.and_then(|address| address.trim().parse().ok()).unwrap_or(config.operator.bind)
}

/// A file of the data folder: the address of its server's operator listener.
const OPERATOR: &str = "latentd.operator";

/// Brings the schema of the store up to date.
///
/// # Errors
/// The database does not answer, or another process uses the data folder.
pub async fn migrate(config: &Config) -> Result<()> {
    if !config.database.url.is_empty() {
        return Ledger::migrate_postgres(&config.database).await.context("database.url");
    }
    open_sqlite(config).await.map(drop).with_context(|| format!("data_dir {}", config.data_dir.display()))
}

/// How running generations are taken back.
pub(super) fn reaping(queue: &config::Queue, all: bool) -> Reaping {
    Reaping { all, max_crashes: queue.max_crashes, backoff: queue.backoff_s.into() }
}
