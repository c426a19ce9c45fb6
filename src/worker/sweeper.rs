//! The sweeper: expires generations that waited too long, takes back generations of lost workers, and deletes
//! generations that were kept long enough.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::census;
use crate::{
    jitter,
    ledger::{Blobs, Hint, Reaping, StoreError, Sweeping},
    metrics::Metrics,
    service::{Live, Outbox},
};

/// Sweeps the ledger and the blob store periodically.
pub struct Sweeper {
    pub store: Arc<dyn Sweeping>,
    pub blobs: Blobs,
    pub live: Live,
    pub metrics: Metrics,
    /// Time between two deletions of generations that were kept long enough.
    pub interval: Duration,
    /// Time between two searches for files that no row refers to. Such files are deleted only if they are older than
    /// this time.
    pub orphan_age: Duration,
    /// How generations of lost workers are taken back.
    pub reaping: Reaping,
    /// Mean time between two searches for generations of lost workers.
    pub reap_interval: Duration,
    /// Waiting time that raises a generation's priority by one.
    pub ageing: Duration,
    /// Wakes the worker of this process.
    pub wake: Arc<Notify>,
    pub outbox: Outbox,
}

/// Time between two searches for expired generations, even if `interval` is longer.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of generations that are read at a time for deletion. This bounds the memory. Each generation is
/// deleted in a transaction of its own.
const PAGE: usize = 100;

impl Sweeper {
    /// Sweeps until `stop`. Queue and files are swept concurrently, so that a bucket that does not answer does not
    /// delay the queue.
    pub async fn run(self, stop: CancellationToken) {
        let swept = async { tokio::join!(self.sweep_queue(), self.sweep_files()) };
        stop.run_until_cancelled(swept).await;
    }

    async fn sweep_queue(&self) {
        let mut expire = tokio::time::interval(EXPIRY_INTERVAL.min(self.interval));
        let mut age = tokio::time::interval(self.ageing.min(Duration::from_secs(60)));
        let (mut count, mut models) = (tokio::time::interval(census::INTERVAL), BTreeSet::new());
        let mut reap_at = self.next_reaping();
        loop {
            let swept = tokio::select! {
                _ = expire.tick() => self.expire().await,
                _ = count.tick() => self.count(&mut models).await,
                _ = age.tick() => self.store.age(self.ageing).await,
                () = tokio::time::sleep_until(reap_at), if self.store.is_shared() => {
                    reap_at = self.next_reaping();
                    self.reap().await
                }
            };
            complain(swept);
        }
    }

    async fn sweep_files(&self) {
        let mut erase = tokio::time::interval(self.interval);
        let mut orphans = tokio::time::interval(self.orphan_age);
        loop {
            complain(tokio::select! {
                _ = erase.tick() => self.erase().await,
                _ = orphans.tick() => self.erase_orphans().await,
            });
        }
    }

    /// When to search for lost workers next. The interval varies by up to a fifth, so that replicas that started
    /// together do not search at the same time.
    fn next_reaping(&self) -> Instant {
        Instant::now() + self.reap_interval.mul_f64(jitter::between(0.8, 1.2))
    }

    /// Takes back generations of lost workers.
    async fn reap(&self) -> Result<(), StoreError> {
        let reaped = self.store.reap(&self.reaping).await?;
        self.metrics.reaped.inc_by((reaped.queued.len() + reaped.ended.len()) as u64);
        for id in reaped.queued {
            tracing::warn!(%id, "a generation whose worker is gone is queued again");
            self.live.event(id);
            self.outbox.tell(Hint::Changed(id));
            self.outbox.tell(Hint::Queued);
            self.wake.notify_one();
        }
        for record in reaped.ended {
            let status = record.status.as_str();
            tracing::warn!(id = %record.id, status, dead = record.dead, "a generation ended with its worker");
            self.metrics.count_end(&record);
            self.outbox.tell(Hint::Changed(record.id));
            self.live.close_unless_running(record.id);
        }
        Ok(())
    }

    /// Ends generations that waited too long.
    async fn expire(&self) -> Result<(), StoreError> {
        for record in self.store.expire_overdue().await? {
            tracing::info!(id = %record.id, "generation expired in the queue");
            self.metrics.count_end(&record);
            self.live.close(record.id);
            self.outbox.tell(Hint::Changed(record.id));
        }
        Ok(())
    }

    /// Deletes generations that were kept long enough, together with their files. Then deletes other expired rows and
    /// leftover logs.
    async fn erase(&self) -> Result<(), StoreError> {
        loop {
            let overdue = self.store.overdue_for_deletion(PAGE).await?;
            let last = overdue.len() < PAGE;
            for record in overdue {
                if self.store.delete(record.id, Some(&record)).await?.is_some() {
                    self.erase_blobs(record.id).await;
                }
            }
            if last {
                self.store.purge().await?;
                return self.erase_logs().await;
            }
        }
    }
}

fn complain(swept: Result<(), StoreError>) {
    if let Err(error) = swept {
        tracing::error!(%error, "the sweep failed and is tried again");
    }
}
