//! What time does to generations: those that waited too long expire, those kept long enough are erased.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    generation::Status,
    ledger::{Blobs, Store, StoreError},
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
/// Erasing in small portions lets accepts come between.
const PORTION: usize = 100;

impl Sweeper {
    pub async fn run(self, stop: CancellationToken) {
        let mut erase = tokio::time::interval(self.interval);
        let mut expire = tokio::time::interval(EXPIRY_INTERVAL.min(self.interval));
        loop {
            let swept = tokio::select! {
                _ = expire.tick() => self.expire().await,
                _ = erase.tick() => self.erase().await,
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
                let Some(record) = self.store.delete(record.id).await? else { continue };
                let Status::Succeeded { images } = &record.status else { continue };
                for image in images {
                    if let Err(error) = self.blobs.delete(&image.blob).await {
                        tracing::warn!(id = %record.id, %error, "an erased generation's picture stays on the disk");
                    }
                }
            }
            if last {
                return Ok(());
            }
        }
    }
}
