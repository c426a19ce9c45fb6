//! The store: opened, or brought up to date.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{self, Config},
    ledger::{PgStore, Reaping, SqliteStore, Store},
};

/// The store that the settings name. Of one that other processes share the hints are heard until `stop`; in one that they do not,
/// what a stopped process had begun is queued again.
pub(super) async fn open_store(
    config: &Config,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Arc<dyn Store>> {
    let retention = config.retention.finished_s.into();
    if !config.database.url.is_empty() {
        let store = PgStore::open(&config.database, retention).await.context("database")?;
        tasks.spawn(store.clone().listen(stop.clone()));
        return Ok(Arc::new(store));
    }
    let store = SqliteStore::open(&config.data_dir, retention).await;
    let store = store.with_context(|| format!("data_dir {}", config.data_dir.display()))?;
    let requeued = store.reap(&reaping(&config.queue, true)).await?.queued.len();
    if requeued > 0 {
        tracing::info!(requeued, "generations that a stopped process had begun are queued again");
    }
    Ok(Arc::new(store))
}

/// Brings the schema of the store up to date.
///
/// # Errors
/// The database does not answer, or another process uses the data folder.
pub async fn migrate(config: &Config) -> Result<()> {
    if !config.database.url.is_empty() {
        return PgStore::migrate(&config.database).await.context("database");
    }
    let store = SqliteStore::open(&config.data_dir, config.retention.finished_s.into()).await;
    store.map(drop).with_context(|| format!("data_dir {}", config.data_dir.display()))
}

/// How running generations are taken back.
pub(super) fn reaping(queue: &config::Queue, all: bool) -> Reaping {
    Reaping { all, max_crashes: queue.max_crashes, backoff: queue.backoff_s.into() }
}
