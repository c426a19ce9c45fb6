//! An engine with its thread and a catalogue, for tests of recipes in process.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    cell::RefCell,
    num::NonZeroUsize,
    path::Path,
    sync::mpsc::{self, Receiver, Sender},
    thread::JoinHandle,
    time::Duration,
};

use latentd::{
    catalogue::Catalogue,
    device::Device,
    engine::{self, Cancel, Log, Observer, Run, RunError, RunTrace},
    generation::{Limits, Phase},
    kernels::Kernels,
    metrics::Metrics,
    pipelines::{Frame, Prepared},
};

pub const LIMITS: Limits = Limits {
    max_side_pixels: 2048,
    max_pixels: 1 << 22,
    max_images: 8,
    max_steps: 1000,
    max_seconds: 30.0,
    max_frames: 121,
    max_prompt_chars: 10_000,
};

pub struct EngineFixture {
    engine: Option<engine::Engine>,
    thread: Option<JoinHandle<()>>,
    pub catalogue: Catalogue,
    pub metrics: Metrics,
    /// The log that the next run replays.
    pub replay: RefCell<Log>,
    /// The folder of the random model.
    _models: Option<tempfile::TempDir>,
}

impl EngineFixture {
    pub fn of(models: &Path, default: &str, kernels: Kernels, max_rows: usize) -> EngineFixture {
        EngineFixture::sliced(models, default, kernels, (max_rows, Duration::from_millis(100)))
    }

    /// With the rows of a batch at most, and the time of a batch before it pauses.
    pub fn sliced(
        models: &Path,
        default: &str,
        kernels: Kernels,
        (max_rows, slice): (usize, Duration),
    ) -> EngineFixture {
        let (metrics, device) = (Metrics::new(), Device::cpu("cpu", None, 2).unwrap().with_kernels(kernels));
        let settings = engine::Settings {
            max_rows: NonZeroUsize::new(max_rows).unwrap(),
            slice,
            max_bytes: 8 << 30,
            max_runs: NonZeroUsize::new(64).unwrap(),
            text_cache_entries: 8,
            // Every network output becomes a portion of the log.
            checkpoint_interval: Some(Duration::ZERO),
        };
        let (engine, thread) = engine::engine(device.clone(), settings, metrics.clone());
        EngineFixture {
            engine: Some(engine),
            thread: Some(std::thread::spawn(move || thread.run())),
            catalogue: Catalogue::open(models, default).unwrap().on(vec![device]),
            metrics,
            replay: RefCell::default(),
            _models: None,
        }
    }

    /// With the random models that `put` writes.
    pub fn made(put: impl Fn(&Path), max_rows: usize) -> EngineFixture {
        let models = tempfile::tempdir().unwrap();
        put(models.path());
        EngineFixture::of(models.path(), "emoji", Kernels::default(), max_rows).holding(models)
    }

    /// Keeps the folder of its models until the fixture is dropped.
    pub fn holding(mut self, models: tempfile::TempDir) -> EngineFixture {
        self._models = Some(models);
        self
    }

    /// Starts a run.
    pub fn run(&self, prepared: Prepared) -> (Cancel, Receiver<Observed>) {
        let (sender, receiver) = mpsc::channel();
        let run = Run {
            prepared,
            replay: std::mem::take(&mut *self.replay.borrow_mut()),
            observer: Box::new(Recorder(sender)),
            cancel: Cancel::default(),
            attempt: None,
            trace: RunTrace::default(),
        };
        let cancel = run.cancel.clone();
        self.engine.as_ref().unwrap().submit(run).map_err(|_| "refused").unwrap();
        (cancel, receiver)
    }
}

impl Drop for EngineFixture {
    fn drop(&mut self) {
        self.engine = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A call of an observer.
pub enum Observed {
    Portion(Log),
    Ended(Result<Vec<Frame>, RunError>),
}

struct Recorder(Sender<Observed>);

impl Observer for Recorder {
    fn progress(&mut self, _: Phase, _: u32, _: u32) {}

    fn preview(&mut self, _: u32, _: u32, _: Frame) {
        panic!("no run asks for previews");
    }

    fn checkpoint(&mut self, portion: Log) -> Option<Log> {
        let _ = self.0.send(Observed::Portion(portion));
        None
    }

    fn ended(self: Box<Self>, outcome: Result<Vec<Frame>, RunError>) {
        let _ = self.0.send(Observed::Ended(outcome));
    }
}

/// The outcome of a run.
pub fn outcome(observed: &Receiver<Observed>) -> Result<Vec<Frame>, RunError> {
    loop {
        if let Observed::Ended(outcome) = observed.recv().unwrap() {
            return outcome;
        }
    }
}
