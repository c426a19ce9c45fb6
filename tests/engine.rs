//! Tests of the engine: pictures that do not depend on other runs, fairness, cancellation, and faulty networks.

#[path = "engine/approximations.rs"]
mod approximations;
#[path = "engine/crashes.rs"]
mod crashes;
#[path = "engine/device_faults.rs"]
mod device_faults;
#[path = "engine/resume.rs"]
mod resume;
#[path = "engine/scripted.rs"]
mod scripted;
#[path = "support/scripted_device.rs"]
mod scripted_device;
#[path = "engine/slices.rs"]
mod slices;

use std::{
    cell::{Cell, RefCell},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Weak, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use latentd::{
    catalogue::Catalogue,
    crash::Attempt,
    device::Device,
    engine::{self, Cancel, Engine, Log, Observer, Reason, Refused, Run, RunError, RunTrace},
    generation::{Fields, Job, Limits, Phase, Work, resolve},
    metrics::Metrics,
    pipelines::{Frame, Inputs, Model, Prepared},
    service::CatalogueRules,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use scripted::{Call, Fault, STAGES, Scripted};
use serde_json::{Map, Value, json};

/// An engine with its thread and the models of the fixtures.
struct EngineFixture {
    engine: Option<Engine>,
    thread: Option<JoinHandle<()>>,
    catalogue: Catalogue,
    metrics: Metrics,
    /// The log that the next run replays.
    replay: RefCell<Log>,
    /// The attempt that is to blame if the process aborts.
    attempt: Cell<Option<Attempt>>,
}

const LIMITS: Limits = Limits {
    max_side_pixels: 2048,
    max_pixels: 1 << 22,
    max_images: 8,
    max_steps: 1000,
    max_seconds: 30.0,
    max_frames: 121,
    max_prompt_chars: 10_000,
};

fn settings(max_rows: usize, slice: Duration) -> engine::Settings {
    engine::Settings {
        max_rows: NonZeroUsize::new(max_rows).unwrap(),
        slice,
        max_bytes: 8 << 30,
        max_runs: NonZeroUsize::new(64).unwrap(),
        text_cache_entries: 8,
        // Every network output becomes a portion of the log.
        checkpoint_interval: Some(Duration::ZERO),
    }
}

/// A call of an observer.
#[derive(Debug)]
enum Observed {
    Progress(Phase, u32, u32),
    Preview(u32, u32),
    Portion(Log),
    /// The number of handles of the model when the end is reported.
    Handles(usize),
    Ended(Result<Vec<Frame>, RunError>),
}

/// Sends the calls of an observer to a test. Counts the handles of the run's model.
struct Recorder(mpsc::Sender<Observed>, Weak<Model>);

impl Observer for Recorder {
    fn progress(&mut self, phase: Phase, step: u32, steps: u32) {
        // A test may have dropped its receiver.
        let _ = self.0.send(Observed::Progress(phase, step, steps));
    }

    fn preview(&mut self, index: u32, step: u32, _frame: Frame) {
        let _ = self.0.send(Observed::Preview(index, step));
    }

    fn checkpoint(&mut self, portion: Log) -> Option<Log> {
        let _ = self.0.send(Observed::Portion(portion));
        None
    }

    fn ended(self: Box<Self>, outcome: Result<Vec<Frame>, RunError>) {
        let _ = self.0.send(Observed::Handles(self.1.strong_count()));
        let _ = self.0.send(Observed::Ended(outcome));
    }
}

impl EngineFixture {
    fn new(max_rows: usize, threads: usize) -> EngineFixture {
        EngineFixture::sliced(max_rows, threads, Duration::from_millis(100))
    }

    fn sliced(max_rows: usize, threads: usize, slice: Duration) -> EngineFixture {
        EngineFixture::on(Device::cpu("cpu", None, threads).unwrap(), settings(max_rows, slice))
    }

    fn on(device: Device, settings: engine::Settings) -> EngineFixture {
        EngineFixture::on_when_lost(device, settings, |reason| panic!("the device is lost: {reason}"))
    }

    fn on_when_lost(
        device: Device,
        settings: engine::Settings,
        when_lost: impl FnOnce(&str) + Send + 'static,
    ) -> EngineFixture {
        let metrics = Metrics::new();
        let (engine, thread) = engine::engine(device, settings, metrics.clone());
        let thread = thread.when_lost(when_lost);
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pipelines");
        EngineFixture {
            engine: Some(engine),
            thread: Some(std::thread::spawn(move || thread.run())),
            catalogue: Catalogue::open(&fixtures, "sd1").unwrap(),
            metrics,
            replay: RefCell::default(),
            attempt: Cell::default(),
        }
    }

    fn job(&self, request: Value) -> Job {
        let Value::Object(fields) = request else { panic!("a request is an object") };
        resolve(Fields::new(fields), &CatalogueRules { catalogue: &self.catalogue, limits: &LIMITS }).unwrap()
    }

    fn start(&self, request: Value) -> (Cancel, mpsc::Receiver<Observed>) {
        let job = self.job(request);
        let model = self.catalogue.load(&job.model).unwrap();
        self.start_on(model, job)
    }

    fn start_on(&self, model: Arc<Model>, job: Job) -> (Cancel, mpsc::Receiver<Observed>) {
        self.start_prepared(self.catalogue.prepare(job, Inputs::default(), model, None).unwrap())
    }

    fn start_prepared(&self, prepared: Prepared) -> (Cancel, mpsc::Receiver<Observed>) {
        self.try_start_prepared(prepared).unwrap()
    }

    fn try_start(&self, request: Value) -> Result<(Cancel, mpsc::Receiver<Observed>), Refused> {
        let job = self.job(request);
        let model = self.catalogue.load(&job.model).unwrap();
        self.try_start_prepared(self.catalogue.prepare(job, Inputs::default(), model, None).unwrap())
    }

    fn try_start_prepared(&self, prepared: Prepared) -> Result<(Cancel, mpsc::Receiver<Observed>), Refused> {
        let (sender, receiver) = mpsc::channel();
        let cancel = Cancel::default();
        let observer = Box::new(Recorder(sender, Arc::downgrade(&prepared.model)));
        let run = Run {
            prepared,
            replay: std::mem::take(&mut *self.replay.borrow_mut()),
            observer,
            cancel: cancel.clone(),
            attempt: self.attempt.get(),
            trace: RunTrace::default(),
        };
        self.engine.as_ref().unwrap().submit(run)?;
        Ok((cancel, receiver))
    }

    /// Waits for the end of the engine's thread.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn draw(&self, request: Value) -> Vec<Frame> {
        outcome(&self.start(request).1).unwrap()
    }
}

impl Drop for EngineFixture {
    fn drop(&mut self) {
        self.engine = None;
        self.join();
    }
}

/// Waits for the end of a run.
fn outcome(observed: &mpsc::Receiver<Observed>) -> Result<Vec<Frame>, RunError> {
    loop {
        if let Observed::Ended(outcome) = observed.recv().unwrap() {
            return outcome;
        }
    }
}

/// `request` with the fields of `more`, which override its own.
fn with(request: &Value, more: Value) -> Value {
    let (mut request, Value::Object(more)) = (request.clone(), more) else { panic!("a request is an object") };
    request.as_object_mut().unwrap().extend(more);
    request
}

fn any_request() -> impl Strategy<Value = Value> {
    let scheduler = prop::sample::select(vec!["pndm", "ddim", "ddpm", "euler", "euler_a", "heun", "dpmpp_2m_karras"]);
    let size = prop::sample::select(vec![(64, 64), (72, 64), (64, 96)]);
    (scheduler, size, 1u32..8, 0u64..1000, prop::sample::select(vec![0.0, 1.0, 5.0, 9.5]), 1u32..3, "[a-z ]{0,40}", any_approximation())
        .prop_map(|(scheduler, (width, height), steps, seed, guidance_scale, n, prompt, approximation)| {
            let request = json!({"prompt": prompt, "scheduler": scheduler, "width": width, "height": height, "steps": steps,
                "seed": seed, "guidance_scale": guidance_scale, "n": n});
            with(&request, approximation)
        })
}

fn deepcache(interval: u32) -> Value {
    json!({"feature_cache": {"kind": "deepcache", "interval": interval}})
}

fn any_approximation() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"guidance_interval": [0.2, 0.7]}),
        deepcache(2),
        deepcache(3),
        with(&deepcache(4), json!({"guidance_interval": [0.3, 1]})),
    ])
}

#[test]
fn a_picture_does_not_depend_on_other_runs() {
    let (alone, crowded) = (EngineFixture::new(16, 2), EngineFixture::new(16, 2));
    let (narrow, single) = (EngineFixture::new(3, 2), EngineFixture::new(16, 1));
    let sliced = EngineFixture::sliced(16, 2, Duration::from_nanos(1));
    let mut runner = TestRunner::new(Config { cases: 6, failure_persistence: None, ..Config::default() });
    let companies = (any_request(), prop::collection::vec(any_request(), 15));
    runner
        .run(&companies, |(request, strangers)| {
            let expected = alone.draw(request.clone());
            for company in [1, 4, 15] {
                for fixture in [&crowded, &narrow, &single, &sliced] {
                    let before: Vec<_> =
                        strangers[..company / 2].iter().map(|stranger| fixture.start(stranger.clone())).collect();
                    let own = fixture.start(request.clone());
                    let after: Vec<_> =
                        strangers[company / 2..company].iter().map(|s| fixture.start(s.clone())).collect();
                    prop_assert!(outcome(&own.1).unwrap() == expected, "with {company} strangers: {request}");
                    for (_, observed) in before.iter().chain(&after) {
                        prop_assert!(outcome(observed).is_ok());
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn different_runs_share_calls_and_known_prompts_are_encoded_once() {
    let fixture = EngineFixture::new(16, 1);
    let same = |seed| json!({"prompt": "the same", "seed": seed, "steps": 20});
    let runs: Vec<_> = (0..4).map(|seed| fixture.start(same(seed))).collect();
    for (_, observed) in &runs {
        outcome(observed).unwrap();
    }
    let calls = fixture.metrics.batch_runs.get_sample_count();
    assert!(fixture.metrics.batch_runs.get_sample_sum() > 1.5 * calls as f64, "calls hold several runs");
    fixture.draw(same(9));
    let hits = fixture.metrics.text_cache.with_label_values(&["hit"]).get();
    assert!(hits >= 2, "prompt and negative prompt come from the cache: {hits}");
}

#[test]
fn progress_and_the_requested_previews_arrive_in_order() {
    let fixture = EngineFixture::new(16, 1);
    let (_, observed) = fixture.start(json!({"prompt": "a", "steps": 20, "previews": 10, "n": 2}));
    let (mut steps, mut previews, mut phases) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match observed.recv().unwrap() {
            Observed::Portion(_) | Observed::Handles(_) => {}
            Observed::Progress(phase, step, of) => {
                phases.push(phase);
                steps.push(step);
                assert_eq!(of, 20, "every report has the number of steps");
            }
            Observed::Preview(index, step) => previews.push((index, step)),
            Observed::Ended(outcome) => break assert_eq!(outcome.unwrap().len(), 2),
        }
    }
    assert!(steps.is_sorted() && steps.contains(&1) && steps.contains(&19), "{steps:?}");
    phases.dedup();
    assert_eq!(phases, [Phase::Encoding, Phase::Denoising, Phase::Decoding]);
    let expected: Vec<(u32, u32)> = (1..=10).flat_map(|k| [(0, 2 * k), (1, 2 * k)]).collect();
    assert_eq!(previews, expected);
}

#[test]
fn a_canceled_run_ends_before_its_next_step() {
    let fixture = EngineFixture::new(16, 1);
    let (cancel, observed) = fixture.start(json!({"prompt": "a", "steps": 900, "n": 8}));
    while !matches!(observed.recv().unwrap(), Observed::Progress(Phase::Denoising, 3, _)) {}
    cancel.cancel(Reason::Disconnected);
    cancel.cancel(Reason::Canceled);
    let ended = outcome(&observed);
    assert!(matches!(ended, Err(RunError::Canceled(Reason::Disconnected))), "the first reason is kept: {ended:?}");
    let steps = fixture.metrics.steps.get();
    assert_eq!(fixture.metrics.wasted_steps.with_label_values(&["disconnected"]).get(), steps);
}

#[test]
fn a_short_run_overtakes_a_long_one() {
    let fixture = EngineFixture::new(2, 1);
    let (cancel, long) = fixture.start(json!({"prompt": "long", "steps": 900, "n": 8}));
    while !matches!(long.recv().unwrap(), Observed::Progress(Phase::Denoising, 1, _)) {}
    let (_, short) = fixture.start(json!({"prompt": "short", "steps": 4}));
    outcome(&short).unwrap();
    cancel.cancel(Reason::Canceled);
    assert!(matches!(outcome(&long), Err(RunError::Canceled(_))), "the long run was still running");
}

/// A job with one row per step and a square picture of `side` pixels.
fn plain(fixture: &EngineFixture, side: u32, steps: u32) -> Job {
    let request = json!({"prompt": "a", "width": side, "height": side, "steps": steps, "guidance_scale": 1.0,
        "scheduler": "ddim"});
    fixture.job(request)
}

#[test]
fn a_short_run_steps_between_the_stages_of_a_large_decode() {
    let fixture = EngineFixture::new(16, 1);
    let (model, calls, go_on) = Scripted::watched();
    let model = Arc::new(model);
    let (_, large) = fixture.start_on(model.clone(), plain(&fixture, 512, 1));
    assert_eq!(calls.recv().unwrap(), Call::Denoise { side: 64 });
    go_on.send(()).unwrap();
    assert_eq!(calls.recv().unwrap(), Call::Decode { side: 64, stage: 0, rows: 1 });
    // The short run starts during the first stage of the large decode.
    let (_, short) = fixture.start_on(model, plain(&fixture, 64, 4));
    (0..100).for_each(|_| go_on.send(()).unwrap());
    assert!(outcome(&large).is_ok() && outcome(&short).is_ok());
    let after: Vec<Call> = calls.try_iter().collect();
    let stage = |stage| after.iter().position(|call| *call == Call::Decode { side: 64, stage, rows: 1 }).unwrap();
    let steps: Vec<usize> = (0..after.len()).filter(|&at| after[at] == Call::Denoise { side: 8 }).collect();
    assert_eq!(steps.len(), 4, "{after:?}");
    assert!(steps[3] < stage(2), "all four steps before the third stage: {after:?}");
    assert!((1..STAGES).map(stage).is_sorted(), "{after:?}");
}

/// Pictures of 512 × 512 pixels fill the room of their size for as long as one after the other is decoded.
#[test]
fn a_small_picture_is_decoded_between_the_stages_of_one_of_512_pixels() {
    let fixture = EngineFixture::new(16, 1);
    let (model, calls, go_on) = Scripted::watched();
    let model = Arc::new(model);
    let mut job = plain(&fixture, 512, 1);
    let Work::Draw(draw) = &mut job.work else { panic!("a drawing") };
    draw.n = 8;
    let (_, large) = fixture.start_on(model.clone(), job);
    let first = |call: &Call| *call == Call::Decode { side: 64, stage: 0, rows: 1 };
    while !first(&calls.recv().unwrap()) {
        go_on.send(()).unwrap();
    }
    let (_, small) = fixture.start_on(model, plain(&fixture, 128, 2));
    (0..200).for_each(|_| go_on.send(()).unwrap());
    assert!(outcome(&large).is_ok() && outcome(&small).is_ok());
    let after: Vec<Call> = calls.try_iter().collect();
    let at = |side, stage| after.iter().position(|call| *call == Call::Decode { side, stage, rows: 1 }).unwrap();
    assert!(at(16, STAGES - 1) < at(64, 3), "its picture is done while the first large one is decoded: {after:?}");
    assert_eq!(after.iter().filter(|call| first(call)).count(), 7, "{after:?}");
}

#[test]
fn a_canceled_decode_ends_before_its_next_stage_and_makes_room() {
    let fixture = EngineFixture::new(16, 1);
    let (model, calls, go_on) = Scripted::watched();
    let model = Arc::new(model);
    let (cancel, first) = fixture.start_on(model.clone(), plain(&fixture, 512, 1));
    let mut seen = vec![calls.recv().unwrap()];
    let (_, second) = fixture.start_on(model.clone(), plain(&fixture, 512, 1));
    let last = Call::Decode { side: 64, stage: STAGES - 1, rows: 1 };
    while seen.last() != Some(&last) {
        go_on.send(()).unwrap();
        seen.push(calls.recv().unwrap());
    }
    let count = |of: Call| seen.iter().filter(|call| **call == of).count();
    assert_eq!(count(Call::Denoise { side: 64 }), 2, "both runs have reached the decoder: {seen:?}");
    assert_eq!(count(Call::Decode { side: 64, stage: 0, rows: 1 }), 1, "only one of them is decoded: {seen:?}");
    cancel.cancel(Reason::Canceled);
    drop(calls);
    drop(go_on);
    assert!(matches!(outcome(&first), Err(RunError::Canceled(Reason::Canceled))));
    assert!(outcome(&second).is_ok(), "the second run is decoded");
    drop(fixture);
    assert_eq!(Arc::strong_count(&model), 1, "ended runs hold no model");
}

#[test]
fn large_pictures_are_decoded_one_by_one_and_small_ones_together() {
    for (side, rows) in [(512, 1), (256, 4), (64, 5)] {
        let fixture = EngineFixture::new(16, 1);
        let (model, calls, go_on) = Scripted::watched();
        let mut job = plain(&fixture, side, 1);
        let Work::Draw(draw) = &mut job.work else { panic!("a drawing") };
        draw.n = 5;
        (0..100).for_each(|_| go_on.send(()).unwrap());
        assert_eq!(outcome(&fixture.start_on(Arc::new(model), job).1).unwrap().len(), 5);
        let decodes: Vec<_> = calls
            .try_iter()
            .filter_map(|call| if let Call::Decode { stage, rows, .. } = call { Some((stage, rows)) } else { None })
            .collect();
        let together = |rows| (0..STAGES).map(move |stage| (stage, rows));
        let mut expected: Vec<_> = (0..5 / rows).flat_map(|_| together(rows)).collect();
        expected.extend((5 % rows > 0).then_some(5 % rows).into_iter().flat_map(together));
        assert_eq!(decodes, expected, "{side}");
    }
}

#[test]
fn a_picture_above_the_models_size_is_decoded_in_tiles() {
    let fixture = EngineFixture::new(16, 1);
    let (model, calls, go_on) = Scripted::watched();
    let mut job = plain(&fixture, 1024, 1);
    let Work::Draw(draw) = &mut job.work else { panic!("a drawing") };
    (draw.n, draw.height) = (2, 512);
    (0..100).for_each(|_| go_on.send(()).unwrap());
    let pictures = outcome(&fixture.start_on(Arc::new(model), job).1).unwrap();
    for frame in pictures {
        let Frame::Picture(picture) = frame else { panic!("a picture") };
        assert_eq!((picture.width, picture.height), (1024, 512));
        assert!(picture.pixels.iter().all(|level| *level == 0), "the scripted decoder draws black");
    }
    let decodes: Vec<_> = calls.try_iter().filter(|call| matches!(call, Call::Decode { .. })).collect();
    // For each picture: tiles of 64, 64 and 32 columns with 64 rows, then the same columns with 16 rows.
    let tile = |side: usize| (0..STAGES).map(move |stage| Call::Decode { side, stage, rows: 1 });
    let picture = || [64, 64, 64, 16, 16, 16].into_iter().flat_map(tile);
    assert_eq!(decodes, picture().chain(picture()).collect::<Vec<_>>());
}

#[test]
fn a_fault_in_one_row_fails_only_its_run() {
    for fault in [Fault::Error, Fault::Panic, Fault::NotANumber, Fault::TooFewRows] {
        let fixture = EngineFixture::new(16, 1);
        let model = Arc::new(Scripted::model(fault));
        // The fault of the scripted network affects rows with the noise of seed 13.
        let job = |seed: u64| {
            fixture.job(json!({"prompt": "a", "seed": seed, "steps": 6, "guidance_scale": 1.0, "scheduler": "ddim"}))
        };
        let runs: Vec<_> =
            [1, 2, 13, 3].into_iter().map(|seed| (seed, fixture.start_on(model.clone(), job(seed)))).collect();
        for (seed, (_, observed)) in runs {
            let ended = outcome(&observed);
            assert_eq!(ended.is_err(), seed == 13, "{fault:?}, seed {seed}: {ended:?}");
            let is_lost = matches!(&ended, Err(RunError::NotFinite { what, step: 1, .. }) if what.contains("denoiser"));
            assert_eq!(is_lost, seed == 13 && matches!(fault, Fault::NotANumber), "{ended:?}");
        }
        // The engine continues to work.
        assert!(outcome(&fixture.start_on(model, job(4)).1).is_ok());
    }
}

/// Schedules that begin without signal need an update of their own for the classifier's gradient.
#[test]
fn classifier_guidance_draws_with_every_scheduler_that_the_model_can_use() {
    let fixture = EngineFixture::new(16, 2);
    let rules = CatalogueRules { catalogue: &fixture.catalogue, limits: &LIMITS };
    let mut drawn = 0;
    let names = latentd::diffusion::names().map(|scheduler| scheduler.name);
    let respaced = ["_karras", "_exponential", "_beta"];
    for name in names.filter(|name| !respaced.iter().any(|suffix| name.ends_with(suffix))) {
        let request = json!({"model": "classifier-guidance", "class_label": 1, "class_guidance_scale": 10.0, "steps": 3,
            "scheduler": name, "seed": 1});
        let Value::Object(fields) = request.clone() else { panic!("a request is an object") };
        if resolve(Fields::new(fields), &rules).is_ok() {
            let ended = outcome(&fixture.start(request).1);
            assert!(ended.is_ok(), "{name}: {ended:?}");
            drawn += 1;
        }
    }
    assert!(drawn > 15, "{drawn}");
}

#[test]
fn a_stopping_engine_ends_its_runs_as_stopped() {
    let fixture = EngineFixture::new(16, 1);
    let (_, observed) = fixture.start(json!({"prompt": "a", "steps": 900, "n": 8}));
    while !matches!(observed.recv().unwrap(), Observed::Progress(Phase::Denoising, 1, _)) {}
    drop(fixture);
    assert!(matches!(outcome(&observed), Err(RunError::Stopped)));
}

#[test]
fn the_params_of_a_job_resolve_to_the_same_job() {
    let fixture = EngineFixture::new(16, 1);
    let job = fixture.job(json!({"prompt": "a", "seed": 5, "scheduler": {"timestep_spacing": "trailing"},
        "guidance_interval": [0.1, 0.9], "feature_cache": {"kind": "deepcache", "interval": 3}}));
    let params: Map<String, Value> = job.params();
    assert_eq!(fixture.job(Value::Object(params)), job);
}
