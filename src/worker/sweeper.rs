//! What time does to generations: those that waited too long expire, those kept long enough are erased.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use crate::{
    generation::{GenerationId, Record, Status},
    ledger::{Blobs, Store, StoreError, blobs::fence_of},
    metrics::Metrics,
    service::Live,
};

/// Sweeps at every interval until it is stopped.
pub struct Sweeper {
    pub store: Arc<dyn Store>,
    pub blobs: Blobs,
    pub live: Live,
    pub metrics: Metrics,
    pub interval: Duration,
}

/// Waiting generations are looked at this often, however rarely finished ones are erased.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// Files that nothing names are looked for this often. They are left by a process that ended between the two writes of
/// accepting, so none younger than this is touched.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(3600);
/// Erasing in small portions lets accepts come between.
const PORTION: usize = 100;

impl Sweeper {
    pub async fn run(self, stop: CancellationToken) {
        let mut erase = tokio::time::interval(self.interval);
        let mut expire = tokio::time::interval(EXPIRY_INTERVAL.min(self.interval));
        let mut orphans = tokio::time::interval(ORPHANS_INTERVAL);
        loop {
            let swept = tokio::select! {
                _ = expire.tick() => self.expire().await,
                _ = erase.tick() => self.erase().await,
                _ = orphans.tick() => self.erase_orphans().await,
                () = stop.cancelled() => return,
            };
            if let Err(error) = swept {
                tracing::error!(%error, "the sweep failed and is tried again");
            }
        }
    }

    async fn expire(&self) -> Result<(), StoreError> {
        for record in self.store.expire_overdue().await? {
            tracing::info!(id = %record.id, "generation expired in the queue");
            self.metrics.finished.with_label_values(&["expired"]).inc();
            self.live.close(record.id);
        }
        Ok(())
    }

    async fn erase(&self) -> Result<(), StoreError> {
        loop {
            let overdue = self.store.overdue_for_deletion(PORTION).await?;
            let last = overdue.len() < PORTION;
            for record in overdue {
                if self.store.delete(record.id).await?.is_some() {
                    self.erase_blobs(record.id).await;
                }
            }
            if last {
                return self.erase_logs().await;
            }
        }
    }

    /// The logs of generations that will not run again and whose worker was not there to erase them.
    async fn erase_logs(&self) -> Result<(), StoreError> {
        let ids = match self.blobs.logs().await {
            Ok(ids) => ids,
            Err(error) => {
                tracing::warn!(%error, "logs without a generation cannot be looked for");
                return Ok(());
            }
        };
        for id in ids {
            let is_over = self.store.get(id).await?.is_none_or(|record| record.status.is_terminal());
            if is_over && let Err(error) = self.blobs.delete_log(id).await {
                tracing::warn!(%id, %error, "the log of a generation that is over stays on the disk");
            }
        }
        Ok(())
    }

    async fn erase_orphans(&self) -> Result<(), StoreError> {
        let ids = match self.blobs.generations().await {
            Ok(ids) => ids,
            Err(error) => {
                tracing::warn!(%error, "files without a generation cannot be looked for");
                return Ok(());
            }
        };
        let old =
            |id: &GenerationId| SystemTime::now().duration_since(id.made_at()).is_ok_and(|age| age > ORPHANS_INTERVAL);
        for id in ids.into_iter().filter(old) {
            match self.store.get(id).await? {
                None => self.erase_blobs(id).await,
                Some(record) => self.erase_losers(&record).await,
            }
        }
        Ok(())
    }

    /// Pictures of attempts that do not count, which a worker that lost its lease may store as late as it likes.
    async fn erase_losers(&self, record: &Record) {
        let winner = match &record.status {
            Status::Queued | Status::Running => return,
            Status::Succeeded { images } => images.first().and_then(|image| fence_of(&image.blob)),
            Status::Failed { .. } | Status::Canceled | Status::Expired => None,
        };
        if let Err(error) = self.blobs.delete_losers(record.id, winner).await {
            tracing::warn!(id = %record.id, %error, "pictures of attempts that do not count stay where they are");
        }
    }

    async fn erase_blobs(&self, id: GenerationId) {
        if let Err(error) = self.blobs.delete_generation(id).await {
            tracing::warn!(%id, %error, "an erased generation's files stay on the disk");
        }
    }
}
