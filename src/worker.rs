//! The worker: claims generations, hands each to the executor of its work, and writes the outcome.

mod drawing;
mod executor;
mod finish;
mod heartbeat;
mod leases;
mod leftovers;
mod slots;
mod sweeper;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    catalogue::Catalogue,
    engine::{Cancel, Reason},
    generation::Record,
    ledger::{Blobs, Claimant, Hint, Lease, Outcome, Working},
    metrics::Metrics,
    service::{Drain, Live, Outbox, Throughput},
};

pub use drawing::{Drawing, Encoded, Preload, encode};
pub use executor::{Claimed, Executor, Tell, failed};
pub use leases::Leases;
pub use slots::Slots;
pub use sweeper::Sweeper;

/// What the worker is made of. Its work is [`Worker::run`].
pub struct Worker {
    pub store: Arc<dyn Working>,
    pub blobs: Blobs,
    pub live: Live,
    pub catalogue: Arc<Catalogue>,
    /// The first that takes a generation's work computes it.
    pub executors: Vec<Box<dyn Executor>>,
    pub metrics: Metrics,
    pub throughput: Throughput,
    /// Somebody has accepted a generation.
    pub wake: Arc<Notify>,
    /// Where the generations at work run.
    pub runs: TaskTracker,
    /// Most generations at work at the same time.
    pub slots: Slots,
    /// How often a generation is begun before it fails for good.
    pub max_attempts: u32,
    /// Its name, and what it claims.
    pub claimant: Claimant,
    pub leases: Leases,
    /// Time between two signs of life.
    pub heartbeat: Duration,
    /// How long one attempt may take, where its request says nothing.
    pub run_timeout: Duration,
    /// Tells other processes.
    pub outbox: Outbox,
    /// Whether it takes no more work.
    pub drain: Drain,
    /// What it has in hand must have nothing beside it.
    pub alone: AtomicBool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Generations that became due without a wake-up (after a retry's delay) are found at the latest after this time.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl Worker {
    /// Works until `stop`; then gives every running generation back to the queue and returns.
    pub async fn run(self, stop: CancellationToken) {
        let worker = Arc::new(self);
        let beating = CancellationToken::new();
        let beats = worker.clone().beat(beating.clone());
        let works = async {
            worker.clone().work_through(stop).await;
            beating.cancel();
        };
        tokio::join!(beats, works);
        if let Err(error) = worker.store.leave(&worker.claimant.worker).await {
            tracing::warn!(%error, "the worker could not take its leave");
        }
    }

    async fn work_through(self: Arc<Self>, stop: CancellationToken) {
        loop {
            // Every generation is a task of its own: one that waits for the store while this loop waits for it too must
            // not depend on this loop to go on.
            for (record, lease) in self.claim(self.slots.room(self.runs.len())).await {
                let worker = self.clone();
                worker.clone().runs.spawn(async move {
                    worker.work(record, lease).await;
                    worker.wake.notify_one();
                });
            }
            self.count().await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stop.cancelled() => break,
            }
        }
        self.live.cancel_all(Reason::Lost);
        self.runs.close();
        self.runs.wait().await;
        // Others need not wait for their next look.
        self.outbox.tell(Hint::Queued);
    }

    async fn claim(&self, room: usize) -> Vec<(Record, Lease)> {
        let idle = self.runs.is_empty();
        if room == 0 || self.drain.is_set() || (!idle && self.alone.load(Ordering::Relaxed)) {
            return Vec::new();
        }
        let asked_at = Instant::now();
        match self.store.claim(&self.claimant(), room, idle).await {
            Ok(claimed) => {
                claimed.iter().for_each(|(_, lease)| self.leases.hold(lease.clone(), asked_at));
                self.alone.store(claimed.iter().any(|(record, _)| record.crash_count > 0), Ordering::Relaxed);
                claimed
            }
            Err(error) => {
                tracing::error!(%error, "generations cannot be claimed");
                Vec::new()
            }
        }
    }

    /// With the models that the catalogue lists now. Where no other process may have them, also with those that it listed
    /// before, so that generations for a model that is gone fail and do not wait in vain.
    fn claimant(&self) -> Claimant {
        let listed = self.catalogue.names();
        let gone = self.catalogue.gone().into_iter().filter(|_| !self.store.is_shared());
        Claimant { models: listed.into_iter().chain(gone).collect(), ..self.claimant.clone() }
    }

    async fn count(&self) {
        self.metrics.running.set(self.runs.len() as i64);
        if let Ok(counts) = self.store.counts().await {
            self.metrics.queued.set(counts.queued as i64);
        }
    }

    /// One generation from its claim to its end.
    async fn work(&self, record: Record, lease: Lease) {
        let (id, begun) = (record.id, Instant::now());
        let cancel = Cancel::default();
        self.live.begin(lease.clone(), cancel.clone());
        self.outbox.tell(Hint::Changed(id));
        tracing::info!(%id, model = record.job.model, attempt = record.attempt, "generation started");

        let claimed = Claimed { record, lease, cancel, max_attempts: self.max_attempts };
        let outcome = self.in_time(&claimed.record, self.outcome(&claimed)).await;
        self.finish(claimed.lease, outcome, begun).await;
    }

    async fn outcome(&self, claimed: &Claimed) -> Outcome {
        // A cancel that came between the claim and `begin` found no run to tell.
        match self.store.get(claimed.id()).await {
            Ok(Some(record)) if record.cancel_requested => claimed.cancel.cancel(Reason::Canceled),
            _ => {}
        }
        let work = &claimed.record.job.work;
        let Some(executor) = self.executors.iter().find(|executor| executor.takes(work)) else {
            return failed("internal", "this worker computes no work of this kind".to_owned(), false);
        };
        let tell = Tell::new(self.live.clone(), claimed.id());
        executor.execute(claimed, &tell).await.map_or_else(|outcome| outcome, Outcome::Succeeded)
    }

    /// The outcome of a run, which is told to end when it takes longer than it may.
    async fn in_time(&self, record: &Record, outcome: impl Future<Output = Outcome>) -> Outcome {
        let own = record.job.run_timeout_s.map(|seconds| Duration::from_secs(seconds.into()));
        let mut outcome = pin!(outcome);
        match tokio::time::timeout(own.unwrap_or(self.run_timeout), outcome.as_mut()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.live.cancel(record.id, Reason::TimedOut);
                outcome.await
            }
        }
    }
}

#[cfg(test)]
mod tests;
