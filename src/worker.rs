//! The worker: claims generations, feeds the engine, stores results.

mod encode;
mod finish;
mod heartbeat;
mod leases;
mod leftovers;
mod load;
mod log;
mod memory;
mod models;
mod observer;
mod save;
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

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    catalogue::{Catalogue, PrepareError},
    crash::{Attempt, blame},
    engine::{Cancel, Engine, Reason, Refused, Run, RunError},
    generation::{Phase, Problem, Record, Work},
    ledger::{Blobs, Claimant, Hint, Lease, Outcome, Working},
    metrics::Metrics,
    pipelines::Frame,
    service::{Devices, Drain, Live, Outbox, Preview, Progress, Throughput},
};
use encode::encode_preview;
use observer::{LiveObserver, Sketch};

pub use encode::{Encoded, encode};
pub use leases::Leases;
pub use memory::Memory;
pub use models::Preload;
pub use slots::Slots;
pub use sweeper::Sweeper;

/// What the worker is made of. Its work is [`Worker::run`].
pub struct Worker {
    pub store: Arc<dyn Working>,
    pub blobs: Blobs,
    pub live: Live,
    pub catalogue: Arc<Catalogue>,
    /// One for each device of the catalogue.
    pub engines: Vec<Engine>,
    pub devices: Devices,
    pub metrics: Metrics,
    pub throughput: Throughput,
    /// Somebody has accepted a generation.
    pub wake: Arc<Notify>,
    /// Where the generations at work run.
    pub runs: TaskTracker,
    /// Most generations at work at the same time.
    pub slots: Slots,
    /// What they take of it.
    pub memory: Memory,
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

        let outcome = self.in_time(&record, self.outcome(&record, &lease, cancel)).await;
        self.finish(lease, outcome, begun).await;
    }

    async fn outcome(&self, record: &Record, lease: &Lease, cancel: Cancel) -> Outcome {
        let frames = match self.compute(record, lease, cancel.clone()).await {
            Ok(frames) => frames,
            Err(outcome) => return outcome,
        };
        let mut saved = pin!(self.save(record, lease, frames));
        tokio::select! {
            biased;
            saved = saved.as_mut() => saved,
            () = self.live.canceled(record.id) => match cancel.reason() {
                // A worker that stops stores what it has drawn, since the log lacks the last steps.
                Some(Reason::Lost) if self.leases.allows(lease) => saved.await,
                reason => ended_early(RunError::Canceled(reason.unwrap_or(Reason::Lost))),
            },
        }
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

    /// The generation's results, not encoded yet, or how it ends without them.
    async fn compute(&self, record: &Record, lease: &Lease, cancel: Cancel) -> Result<Vec<Frame>, Outcome> {
        let (id, job) = (record.id, &record.job);
        let Work::Draw(draw) = &job.work;
        // A cancel that came between the claim and `begin` found no run to tell.
        match self.store.get(id).await {
            Ok(Some(record)) if record.cancel_requested => cancel.cancel(Reason::Canceled),
            _ => {}
        }
        self.live
            .progress(id, Progress { phase: Phase::Loading, step: 0, steps: draw.steps, percent: 0.0, eta_s: None });
        let inputs = self.load_inputs(record).await?;
        // All are held to the end of this function, when the engine has let go of the run and of all handles of its models.
        let placed = self.place(job);
        let (held, refiner, _room) = self.load_models(record, &placed, &cancel).await?;
        let (catalogue, wanted) = (self.catalogue.clone(), job.clone());
        let models = (held.model().clone(), refiner.as_ref().map(|refiner| refiner.model().clone()));
        let attempt = Some(Attempt { id, fence: lease.fence() });
        let prepared = tokio::task::spawn_blocking(move || {
            blame(attempt, || catalogue.prepare(wanted, inputs, models.0, models.1))
        });
        let prepared = prepared.await;
        let prepared = prepared.map_err(|error| failed("internal", format!("loading: {error}"), true))?;
        let prepared = prepared.map_err(|error| match error {
            PrepareError::Scheduler(error) => failed("unsupported_for_model", error.to_string(), false),
            error => failed("model_unavailable", error.to_string(), false),
        })?;

        let (sketches, mut sketched) = mpsc::channel(16);
        // A portion that finds this full is offered again.
        let (portions, mut recorded) = mpsc::channel(4);
        let (ended, mut outcome) = oneshot::channel();
        let observer = Box::new(LiveObserver::new(self.live.clone(), id, sketches, portions, ended));
        let mut log = self.open_log(record, lease).await?;
        let replay = log.load().await;
        let run = Run { prepared, replay, observer, cancel, attempt };
        let engine = self
            .engines
            .get(placed.device)
            .ok_or_else(|| failed("internal", format!("the device {} has no engine", placed.device), false))?;
        engine.submit(run).map_err(|refused| match refused {
            // The worker never has more runs than the engine takes, so this is the sign of a stuck engine.
            Refused::Full(_) => failed("overloaded", "the engine takes no more runs".to_owned(), true),
            Refused::Stopped(_) => Outcome::Released,
        })?;

        let outcome = loop {
            tokio::select! {
                Some(portion) = recorded.recv() => {
                    // A store that is slow must not hold back the end of the run; only a run that goes on elsewhere waits.
                    let mut appended = pin!(log.append(portion));
                    tokio::select! {
                        () = &mut appended => {}
                        ended = &mut outcome => {
                            let ended = ended.unwrap_or(Err(RunError::Stopped)).map_err(ended_early);
                            if let Err(Outcome::Released) = ended {
                                appended.await;
                            }
                            break ended;
                        }
                    }
                }
                Some(sketch) = sketched.recv() => self.publish(record, sketch).await,
                outcome = &mut outcome => break outcome.unwrap_or(Err(RunError::Stopped)).map_err(ended_early),
            }
        };
        if let Err(Outcome::Released) = outcome {
            // The observer is gone by now, and with it the other end.
            while let Some(portion) = recorded.recv().await {
                log.append(portion).await;
            }
        }
        outcome
    }

    /// Shows a preview, encoded away from the engine's thread.
    async fn publish(&self, record: &Record, sketch: Sketch) {
        let Sketch { index, step, preview_index, frame } = sketch;
        let Work::Draw(draw) = &record.job.work;
        let side = draw.width.max(draw.height);
        match tokio::task::spawn_blocking(move || encode_preview(frame, side)).await {
            Ok(Ok((media_type, bytes))) => {
                self.live.preview(record.id, Preview { index, step, preview_index, media_type, bytes });
            }
            Ok(Err(error)) => tracing::warn!(id = %record.id, %error, "a preview cannot be encoded"),
            Err(error) => tracing::warn!(id = %record.id, %error, "a preview cannot be encoded"),
        }
    }
}

fn failed(code: &str, message: String, retryable: bool) -> Outcome {
    Outcome::Failed(Problem { code: code.to_owned(), message, retryable })
}

fn ended_early(error: RunError) -> Outcome {
    match error {
        RunError::Canceled(Reason::Canceled | Reason::Disconnected) => Outcome::Canceled,
        RunError::Canceled(Reason::Lost) | RunError::Stopped => Outcome::Released,
        RunError::Canceled(Reason::TimedOut) => {
            failed("run_timeout", "the generation took longer than it may; see run_timeout_s".to_owned(), false)
        }
        RunError::Pipeline(error) => failed("internal", error.to_string(), false),
        RunError::Panicked => failed("internal", error.to_string(), false),
    }
}
