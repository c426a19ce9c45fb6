//! What time does to generations: those that waited too long expire, those kept long enough are erased.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    generation::{GenerationId, Record, Status},
    ledger::{Blobs, Hint, Reaping, Store, StoreError, blobs::fence_of},
    metrics::Metrics,
    service::{Live, Outbox},
};

/// Sweeps at every interval until it is stopped.
pub struct Sweeper {
    pub store: Arc<dyn Store>,
    pub blobs: Blobs,
    pub live: Live,
    pub metrics: Metrics,
    pub interval: Duration,
    /// How generations are taken back whose worker is gone, and how often that is looked for.
    pub reaping: Reaping,
    pub reap_interval: Duration,
    /// So long a wait raises a generation's priority.
    pub ageing: Duration,
    pub wake: Arc<Notify>,
    pub outbox: Outbox,
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
        let mut reap_at = self.next_reaping();
        let mut age = tokio::time::interval(self.ageing.min(Duration::from_secs(60)));
        loop {
            let swept = tokio::select! {
                _ = expire.tick() => self.expire().await,
                _ = erase.tick() => self.erase().await,
                _ = orphans.tick() => self.erase_orphans().await,
                _ = age.tick() => self.store.age(self.ageing).await,
                () = tokio::time::sleep_until(reap_at), if self.store.is_shared() => {
                    reap_at = self.next_reaping();
                    self.reap().await
                }
                () = stop.cancelled() => return,
            };
            if let Err(error) = swept {
                tracing::error!(%error, "the sweep failed and is tried again");
            }
        }
    }

    /// Apart by a fifth, so that replicas that started together do not always look together.
    fn next_reaping(&self) -> Instant {
        let share = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
        Instant::now() + self.reap_interval.mul_f64(0.8 + 0.4 * share)
    }

    async fn reap(&self) -> Result<(), StoreError> {
        let reaped = self.store.reap(&self.reaping).await?;
        self.metrics.reaped.inc_by((reaped.queued.len() + reaped.ended.len()) as u64);
        for id in reaped.queued {
            tracing::warn!(%id, "a generation whose worker is gone is queued again");
            self.outbox.tell(Hint::Changed(id));
            self.outbox.tell(Hint::Queued);
            self.wake.notify_one();
        }
        for record in reaped.ended {
            let status = record.status.as_str();
            tracing::warn!(id = %record.id, status, dead = record.dead, "a generation ended with its worker");
            self.metrics.finished.with_label_values(&[status]).inc();
            self.outbox.tell(Hint::Changed(record.id));
            self.live.close_unless_running(record.id);
        }
        Ok(())
    }

    async fn expire(&self) -> Result<(), StoreError> {
        for record in self.store.expire_overdue().await? {
            tracing::info!(id = %record.id, "generation expired in the queue");
            self.metrics.finished.with_label_values(&["expired"]).inc();
            self.live.close(record.id);
            self.outbox.tell(Hint::Changed(record.id));
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
                self.store.purge().await?;
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
