//! Tests of the worker with executors that are not part of the product.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    config::{Config, Sources},
    generation::{Artifact, Facts, Format, GenerationId, Job, Phase, Problem, Progress, Status, Work},
    ledger::{Acceptance, Accepts, Ledger, Reads, blobs::path_of},
};

const HOUR: Duration = Duration::from_secs(3600);

/// An executor for prompts that begin with its name. The executor writes the prompt into a file.
struct Copying(&'static str, Blobs);

#[async_trait]
impl Executor for Copying {
    fn takes(&self, work: &Work) -> bool {
        work.prompt().starts_with(self.0)
    }

    async fn execute(&self, claimed: &Claimed, tell: &RunReporter) -> Result<Vec<Artifact>, Outcome> {
        let prompt = claimed.record.job.work.prompt();
        tell.progress(Progress { phase: Phase::Saving, step: 1, steps: 1, percent: 100.0, eta_s: None });
        if prompt.ends_with("spoilt") {
            return Err(failed("out_of_memory", "too large".to_owned(), true));
        }
        if prompt.ends_with("for ever") {
            tell.until_canceled().await;
            let is_canceled = claimed.cancel.reason() == Some(Reason::Canceled);
            return Err(if is_canceled { Outcome::Canceled } else { Outcome::Released });
        }
        let text = format!("{}: {prompt}", self.0);
        let blob = path_of(claimed.id(), claimed.lease.fence(), 0, "txt");
        self.1.put(&blob, text.clone().into()).await.map_err(|error| claimed.retry(error.to_string()))?;
        let facts = Facts::Picture { width: 1, height: 1, seed: 0 };
        let (media_type, sha256) = (Format::Png.into(), "00ff".to_owned());
        Ok(vec![Artifact {
            index: 0,
            media_type,
            bytes: text.len() as u64,
            sha256,
            unsigned_sha256: None,
            watermark: None,
            blob,
            flagged: None,
            facts,
        }])
    }
}

/// The parts of a worker with two executors, and the handles that control the worker.
struct House {
    _dir: TempDir,
    store: Arc<Ledger>,
    blobs: Blobs,
    model: String,
    live: Live,
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl House {
    async fn build() -> (House, Worker) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Ledger::open_sqlite(dir.path(), HOUR).await.unwrap());
        let blobs = Blobs::open(&Config::load(&Sources::default()).unwrap().blobs, dir.path()).unwrap();
        let (live, wake, stop) = (Live::default(), Arc::new(Notify::new()), CancellationToken::new());
        let catalogue = Arc::new(Catalogue::open(Path::new(""), "emoji").unwrap());
        let model = catalogue.default_name().to_owned();
        let worker = Worker {
            store: store.clone(),
            blobs: blobs.clone(),
            live: live.clone(),
            catalogue,
            executors: vec![Box::new(Copying("one", blobs.clone())), Box::new(Copying("", blobs.clone()))],
            metrics: Metrics::new(),
            tracer: Tracer::off(),
            throughput: Throughput::default(),
            wake: wake.clone(),
            runs: TaskTracker::new(),
            slots: Slots::new(4),
            max_attempts: 3,
            max_crashes: 3,
            claimant: Claimant { worker: "one".to_owned(), lease: HOUR, models: Vec::new(), alone_from: 2 },
            leases: Leases::new(None),
            heartbeat: HOUR,
            run_timeout: HOUR,
            outbox: Outbox::default(),
            drain: Drain::default(),
            alone: AtomicBool::new(false),
        };
        (House { _dir: dir, store, blobs, model, live, wake, stop }, worker)
    }

    async fn accept(&self, prompt: &str) -> GenerationId {
        let job: Job = serde_json::from_value(json!({
            "model": self.model, "prompt": prompt, "negative_prompt": null, "width": 64, "height": 64, "n": 1, "steps": 1,
            "guidance_scale": 1.0, "guidance_rescale": 0.0, "scheduler": "ddim", "eta": 0.0, "clip_skip": 0, "seed": 0,
            "seed_mode": "per_image", "previews": 0, "encoding": {"format": "png"}, "metadata_level": "none",
            "on_disconnect": "keep", "start_timeout_s": 600, "metadata": {},
        }))
        .unwrap();
        let id = GenerationId::new();
        let acceptance = Acceptance {
            id,
            tenant: "default",
            api_key: None,
            job: &job,
            fingerprint: [7; 32],
            key: None,
            cost: 1.0,
            assumed_speed: 100.0,
            max_queued: usize::MAX,
        };
        self.store.accept(&acceptance).await.unwrap();
        self.wake.notify_one();
        id
    }

    async fn end_of(&self, id: GenerationId) -> Status {
        loop {
            let mut state = self.live.subscribe(id);
            let record = self.store.get(id).await.unwrap().unwrap();
            if record.status.is_terminal() {
                return record.status;
            }
            // The receiver is closed at the end and changes with each event.
            let _ = tokio::time::timeout(Duration::from_secs(1), state.changed()).await;
        }
    }

    async fn text_of(&self, id: GenerationId) -> String {
        let Status::Succeeded { artifacts } = self.end_of(id).await else { panic!("{id} did not succeed") };
        let file = self.blobs.get(&artifacts[0].blob).await.unwrap().unwrap();
        String::from_utf8(file.to_vec()).unwrap()
    }
}

#[tokio::test]
async fn the_first_executor_that_takes_a_work_computes_it() {
    let (house, worker) = House::build().await;
    let running = tokio::spawn(worker.run(house.stop.clone()));
    let (first, second) = (house.accept("one fox").await, house.accept("two foxes").await);
    assert_eq!(house.text_of(second).await, ": two foxes");
    assert_eq!(house.text_of(first).await, "one: one fox");
    house.stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn the_ledger_stores_the_outcome_of_the_executor() {
    let (house, worker) = House::build().await;
    let running = tokio::spawn(worker.run(house.stop.clone()));
    let (spoilt, endless) = (house.accept("one spoilt").await, house.accept("one for ever").await);
    let Status::Failed { problem: Problem { code, .. } } = house.end_of(spoilt).await else { panic!("it succeeded") };
    assert_eq!(code, "out_of_memory");
    let told = async {
        while house.live.state(endless).and_then(|state| state.progress).is_none() {
            tokio::task::yield_now().await;
        }
    };
    told.await;
    house.live.cancel(endless, Reason::Canceled);
    assert!(matches!(house.end_of(endless).await, Status::Canceled), "it was told to end");
    house.stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_stop_cancels_a_run_whose_task_has_not_begun() {
    let (house, worker) = House::build().await;
    let id = house.accept("one for ever").await;
    let worker = Arc::new(worker);
    let (record, lease) = worker.claim(1).await.pop().unwrap();
    // On the test's only thread, the run's task begins at the next `await`.
    worker.start(record, lease);
    house.live.cancel_all(Reason::Lost);
    worker.runs.close();
    tokio::time::timeout(HOUR / 60, worker.runs.wait()).await.unwrap();
    assert!(matches!(house.store.get(id).await.unwrap().unwrap().status, Status::Queued), "the queue has it again");
}
