//! The worker: claims generations, feeds the engine, stores results.

mod load;
mod log;
mod models;
mod observer;
mod save;
mod slots;
mod sweeper;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    diffusion::SchedulerConfig,
    engine::{Cancel, Engine, Reason, Refused, Run, RunError},
    generation::{Phase, Problem, Record, Status},
    imaging::{RgbImage, encode_preview, upscale},
    ledger::{Blobs, Claimant, Lease, Outcome, Store, StoreError},
    metrics::Metrics,
    pipelines::{Catalogue, Companions},
    service::{Live, Preview, Progress, Throughput},
};
use observer::{LiveObserver, Sketch};

pub use models::Preload;
pub use slots::Slots;
pub use sweeper::Sweeper;

/// What the worker is made of. Its work is [`Worker::run`].
pub struct Worker {
    pub store: Arc<dyn Store>,
    pub blobs: Blobs,
    pub live: Live,
    pub catalogue: Arc<Catalogue>,
    pub engine: Engine,
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
        loop {
            // Every generation is a task of its own: one that waits for the store while this loop waits for it too must
            // not depend on this loop to go on.
            for (record, lease) in worker.claim(worker.slots.room(worker.runs.len())).await {
                let worker = worker.clone();
                worker.clone().runs.spawn(async move {
                    worker.work(record, lease).await;
                    worker.wake.notify_one();
                });
            }
            worker.count().await;
            tokio::select! {
                () = worker.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stop.cancelled() => break,
            }
        }
        worker.live.cancel_all(Reason::Lost);
        worker.runs.close();
        worker.runs.wait().await;
    }

    async fn claim(&self, room: usize) -> Vec<(Record, Lease)> {
        if room == 0 {
            return Vec::new();
        }
        match self.store.claim(&self.claimant, room, self.runs.is_empty()).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(%error, "generations cannot be claimed");
                Vec::new()
            }
        }
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
        self.live.begin(id, cancel.clone());
        tracing::info!(%id, model = record.generation.model, attempt = record.attempt, "generation started");

        let outcome = match self.compute(&record, &lease, cancel).await {
            Ok(images) => self.save(&record, &lease, images).await,
            Err(outcome) => outcome,
        };
        self.finish(lease, outcome, begun).await;
        self.live.close(id);
    }

    /// The generation's pictures, or how it ends without them.
    async fn compute(&self, record: &Record, lease: &Lease, cancel: Cancel) -> Result<Vec<RgbImage>, Outcome> {
        let (id, generation) = (record.id, &record.generation);
        // A cancel that came between the claim and `begin` found no run to tell.
        match self.store.get(id).await {
            Ok(Some(record)) if record.cancel_requested => cancel.cancel(Reason::Canceled),
            _ => {}
        }
        self.live.progress(
            id,
            Progress { phase: Phase::Loading, step: 0, steps: generation.steps, percent: 0.0, eta_s: None },
        );
        let inputs = self.load_inputs(record).await?;
        // All are held to the end of this function, when the engine has let go of the run and of all handles of its models.
        let (held, refiner, _slot) = self.load_models(record, &cancel).await?;
        let (catalogue, wanted) = (self.catalogue.clone(), generation.clone());
        let models = (held.model().clone(), refiner.as_ref().map(|refiner| refiner.model().clone()));
        let companions =
            tokio::task::spawn_blocking(move || Companions::of(&wanted, &catalogue, &models.0, models.1)).await;
        let companions = companions.map_err(|error| failed("internal", format!("loading: {error}"), true))?;
        let companions = companions.map_err(|error| failed("model_unavailable", error.to_string(), false))?;
        let card = self.catalogue.card(&generation.model);
        let card = card.ok_or_else(|| failed("model_unavailable", "the model is gone".to_owned(), false))?;
        let scheduler = SchedulerConfig::overlay(&card.scheduler_config, &generation.scheduler)
            .map_err(|error| failed("unsupported_for_model", error.to_string(), false))?;

        let (sketches, mut sketched) = mpsc::channel(16);
        // A portion that finds this full is offered again.
        let (portions, mut recorded) = mpsc::channel(4);
        let (ended, mut outcome) = oneshot::channel();
        let observer = Box::new(LiveObserver::new(self.live.clone(), id, sketches, portions, ended));
        let model = held.model().clone();
        let mut log = self.open_log(record, lease).await?;
        let replay = log.load().await;
        let run =
            Run { generation: generation.clone(), inputs, companions, scheduler, model, replay, observer, cancel };
        self.engine.submit(run).map_err(|refused| match refused {
            // The worker never has more runs than the engine takes, so this is the sign of a stuck engine.
            Refused::Full(_) => failed("overloaded", "the engine takes no more runs".to_owned(), true),
            Refused::Stopped(_) => Outcome::Released,
        })?;

        let outcome = loop {
            tokio::select! {
                Some(portion) = recorded.recv() => log.append(portion).await,
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

    /// A preview as a PNG, encoded away from the engine's thread.
    async fn publish(&self, record: &Record, sketch: Sketch) {
        let Sketch { index, step, preview_index, picture } = sketch;
        // As large as the picture, but no larger than an event stream should carry.
        let factor = (record.generation.width.max(record.generation.height).min(256)
            / picture.width.max(picture.height).max(1))
        .max(1);
        let encoded = tokio::task::spawn_blocking(move || encode_preview(&upscale(&picture, factor))).await;
        match encoded {
            Ok(Ok(png)) => self.live.preview(record.id, Preview { index, step, preview_index, png: png.into() }),
            Ok(Err(error)) => tracing::warn!(id = %record.id, %error, "a preview cannot be encoded"),
            Err(error) => tracing::warn!(id = %record.id, %error, "a preview cannot be encoded"),
        }
    }

    /// Writes the outcome, for as long as it takes: the ledger must not be left believing that the run goes on.
    async fn finish(&self, lease: Lease, outcome: Outcome, begun: Instant) {
        let id = lease.id();
        let mut delay = Duration::from_millis(100);
        let finished = loop {
            match self.store.finish(lease.clone(), outcome.clone()).await {
                Ok(finished) => break finished,
                Err(StoreError::Corrupt { .. }) => break None,
                Err(error) => tracing::error!(%id, %error, "the outcome of a generation cannot be written yet"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(10));
        };
        let Some(record) = finished else { return };
        self.live.event(id);
        match &record.status {
            Status::Queued | Status::Running => tracing::info!(%id, "generation goes back to the queue"),
            status => {
                self.erase_log(id).await;
                self.metrics.finished.with_label_values(&[status.as_str()]).inc();
                tracing::info!(%id, status = status.as_str(), ms = begun.elapsed().as_millis() as u64, "generation ended");
                if let Status::Failed { problem } = status {
                    tracing::warn!(%id, code = problem.code, "{}", problem.message);
                }
                if let Status::Succeeded { .. } = status {
                    self.metrics.run_seconds.observe(begun.elapsed().as_secs_f64());
                    self.throughput.record(begun.elapsed(), self.metrics.running.get().max(1) as usize);
                }
            }
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
        RunError::Pipeline(error) => failed("internal", error.to_string(), false),
        RunError::Panicked => failed("internal", error.to_string(), false),
    }
}
