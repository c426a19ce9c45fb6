//! The worker: claims generations, passes each to the executor of its work, and writes the outcome to the ledger.

mod census;
mod drawing;
mod executor;
mod finish;
mod heartbeat;
mod leases;
mod leftovers;
mod slots;
mod stages;
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
use tracing::Instrument;

use crate::{
    catalogue::Catalogue,
    engine::{Cancel, Reason},
    generation::Record,
    ledger::{Blobs, Claimant, Hint, Lease, Outcome, WorkerStore},
    metrics::Metrics,
    service::{Drain, Live, Outbox, Throughput},
    telemetry::{OpenSpan, SpanKind, Tracer},
};

pub use drawing::{Drawing, Encoded, FrameError, Marking, Preload, Signing, encode, sign};
pub use executor::{Claimed, Executor, RunReporter, failed};
pub use leases::Leases;
pub use slots::Slots;
use stages::Stages;
pub use sweeper::Sweeper;

/// A worker. [`Worker::run`] does its work.
pub struct Worker {
    pub store: Arc<dyn WorkerStore>,
    pub blobs: Blobs,
    /// Publishes the progress of runs, and cancels runs.
    pub live: Live,
    pub catalogue: Arc<Catalogue>,
    /// The executors. A generation goes to the first one that takes its work.
    pub executors: Vec<Box<dyn Executor>>,
    pub metrics: Metrics,
    pub tracer: Tracer,
    pub throughput: Throughput,
    /// Notified when the worker should look for generations to claim.
    pub wake: Arc<Notify>,
    /// Tracks the tasks of the claimed generations.
    pub runs: TaskTracker,
    /// Limits how many generations compute, and how many wait for their model or for memory.
    pub slots: Slots,
    /// Maximum number of attempts of a generation.
    pub max_attempts: u32,
    /// Number of crashes at which a generation is given up.
    pub max_crashes: u32,
    /// The worker's name and lease time. The list of models is replaced at each claim.
    pub claimant: Claimant,
    pub leases: Leases,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Maximum time of an attempt whose request has no `run_timeout_s`.
    pub run_timeout: Duration,
    /// Sends hints to other processes.
    pub outbox: Outbox,
    /// Whether the worker claims no more generations.
    pub drain: Drain,
    /// Whether a claimed generation must run alone, because too many processes crashed while it was running.
    pub alone: AtomicBool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Maximum time until the worker finds generations that became due without a wake-up, such as retries after their
/// delay.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl Worker {
    /// Works until `stop`, then returns all running generations to the queue.
    pub async fn run(self, stop: CancellationToken) {
        let worker = Arc::new(self);
        let runs_ended = CancellationToken::new();
        let heartbeats = worker.clone().send_heartbeats(runs_ended.clone());
        let works = async {
            worker.clone().work_through(stop).await;
            runs_ended.cancel();
        };
        tokio::join!(heartbeats, works);
        if let Err(error) = worker.store.leave(&worker.claimant.worker).await {
            tracing::warn!(%error, "the worker could not remove itself from the list of workers");
        }
    }

    async fn work_through(self: Arc<Self>, stop: CancellationToken) {
        loop {
            for (record, lease) in self.claim(self.slots.room(self.runs.len())).await {
                self.start(record, lease);
            }
            self.metrics.running.set(self.runs.len() as i64);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stop.cancelled() => break,
            }
        }
        self.live.cancel_all(Reason::Lost);
        self.runs.close();
        self.runs.wait().await;
        // With this hint, other workers look at the queue at once instead of at their next poll.
        self.outbox.tell(Hint::Queued);
    }

    /// Starts the run of a claimed generation in a task of its own, so that the run continues while the worker waits
    /// for the store. The run is registered before its task begins, so that a stop of the worker cancels every claimed
    /// run.
    fn start(self: &Arc<Self>, record: Record, lease: Lease) {
        let cancel = Cancel::default();
        self.live.begin(lease.clone(), cancel.clone());
        self.note_claim(&record, &lease);
        let (max_attempts, max_crashes) = (self.max_attempts, self.max_crashes);
        let attempt = self.open_attempt(&record, &lease);
        let trace = attempt.context().clone();
        // The span has the level of errors, so that the filter of the log never removes these ids from errors.
        let span = tracing::error_span!("generation", id = %record.id, trace_id = ?trace.trace);
        let claimed = Claimed { record, lease, cancel, max_attempts, max_crashes, trace };
        let worker = self.clone();
        let work = async move {
            worker.work(claimed, attempt).await;
            worker.wake.notify_one();
        };
        self.runs.spawn(work.instrument(span));
    }

    /// Begins the span of an attempt. For the first attempt, also records the span of the wait in the queue.
    fn open_attempt(&self, record: &Record, lease: &Lease) -> OpenSpan {
        let request = record.job.trace.as_ref();
        if let (Some(request), Some(started_at), 1) = (request, record.started_at, lease.fence()) {
            self.tracer.record_between(request, "queue wait", record.created_at.into(), started_at.into());
        }
        let mut attempt = self.tracer.open(request, "attempt", SpanKind::Consumer);
        attempt.set("latentd.generation.id", record.id.to_string());
        attempt.set("latentd.model", record.job.model.as_str());
        attempt.set("latentd.attempt", record.attempt);
        attempt
    }

    fn note_claim(&self, record: &Record, lease: &Lease) {
        self.metrics.claimed.inc();
        self.metrics.expect_end(&record.job.model);
        if let Some(started) = record.started_at.filter(|_| lease.fence() == 1) {
            let wait = (started - record.created_at).as_seconds_f64().max(0.0);
            self.metrics.queue_wait.with_label_values(&[record.job.priority.as_str()]).observe(wait);
        }
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
                let alone = claimed.iter().any(|(record, _)| record.crash_count >= self.claimant.alone_from);
                self.alone.store(alone, Ordering::Relaxed);
                claimed
            }
            Err(error) => {
                tracing::error!(%error, "generations cannot be claimed");
                Vec::new()
            }
        }
    }

    /// The claimant with the models that the catalogue lists now. If the store is not shared, it also has models that
    /// were listed earlier, so that generations for a removed model fail instead of waiting forever.
    fn claimant(&self) -> Claimant {
        let listed = self.catalogue.names();
        let gone = self.catalogue.gone().into_iter().filter(|_| !self.store.is_shared());
        Claimant { models: listed.into_iter().chain(gone).collect(), ..self.claimant.clone() }
    }

    /// Works on one claimed generation to its end.
    async fn work(&self, claimed: Claimed, mut attempt: OpenSpan) {
        let (id, begun, record) = (claimed.id(), Instant::now(), &claimed.record);
        self.outbox.tell(Hint::Changed(id));
        tracing::info!(%id, model = record.job.model, attempt = record.attempt, "generation started");
        let outcome = self.in_time(record, self.outcome(&claimed)).await;
        note_outcome(&mut attempt, &outcome);
        let _write = self.tracer.open(Some(attempt.context()), "write outcome", SpanKind::Internal);
        self.finish(claimed.lease, outcome, begun).await;
    }

    async fn outcome(&self, claimed: &Claimed) -> Outcome {
        // A cancel request between the claim and `begin` found no run to cancel, so the store is asked.
        match self.store.get(claimed.id()).await {
            Ok(Some(record)) if record.cancel_requested => claimed.cancel.cancel(Reason::Canceled),
            _ => {}
        }
        let work = &claimed.record.job.work;
        let Some(executor) = self.executors.iter().find(|executor| executor.takes(work)) else {
            return failed("internal", "this worker computes no work of this kind".to_owned(), false);
        };
        let tell = RunReporter::new(self.live.clone(), claimed.id(), Stages::new(self.metrics.clone()));
        executor.execute(claimed, &tell).await.map_or_else(|outcome| outcome, Outcome::Succeeded)
    }

    /// The outcome of a run. A run that exceeds its time limit is canceled.
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

fn note_outcome(attempt: &mut OpenSpan, outcome: &Outcome) {
    let (name, problem) = match outcome {
        Outcome::Succeeded(_) => ("succeeded", None),
        Outcome::Canceled => ("canceled", None),
        Outcome::Released => ("released", None),
        Outcome::Failed(problem) => ("failed", Some(problem)),
        Outcome::Retry { problem, .. } => ("retry", Some(problem)),
        Outcome::DeviceLost { problem, .. } => ("device lost", Some(problem)),
    };
    attempt.set("latentd.outcome", name);
    problem.iter().for_each(|problem| attempt.fail(&problem.code));
}

#[cfg(test)]
mod tests;
