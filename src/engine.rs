//! The batching engine: runs the network calls of many generations in shared batches.
//!
//! The recipe of a generation is an async function that the engine's thread polls. Where the function awaits a network,
//! it leaves a *pending call* in its slot: one network call with one or more *rows*. The engine selects rows with the
//! same [`BatchKey`] from any number of runs, computes them as one batch, and gives each run its answers. So the steps
//! of different requests share batches, even if their samplers, step counts, guidance scales and prompts differ.
//! Dropping the future cancels the run. No row depends on another row, so the other runs of a batch do not change a
//! picture.

mod account;
mod batch;
mod batch_key;
mod call_clock;
mod drive;
mod log;
mod pace;
mod pending_call;
mod policy;
mod recording;
mod row_limits;
mod run;
mod run_trace;
mod running_batch;
mod slot;
mod text_cache;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

pub use batch_key::BatchKey;
pub use call_clock::CallClock;
pub use log::{Log, UnusablePortion};
pub use policy::{BatchLimits, Next, PausedBatch, Pick, Turn, WaitingCall, choose};
pub use run_trace::RunTrace;

use crate::{
    crash::Attempt,
    device::Device,
    generation::Phase,
    metrics::Metrics,
    pipelines::{Frame, PipelineError, Prepared},
};

/// A generation that is ready to be computed.
pub struct Run {
    pub prepared: Prepared,
    /// The outputs of the first network calls of this generation, from the logs of earlier runs. The calls are
    /// consecutive.
    pub replay: Log,
    /// Receives progress, previews, log portions and the outcome.
    pub observer: Box<dyn Observer>,
    pub cancel: Cancel,
    /// The attempt to blame if the process aborts while it works on this run; `None` blames no attempt.
    pub attempt: Option<Attempt>,
    /// Records what the engine does for this run.
    pub trace: RunTrace,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("job", &self.prepared.job).finish_non_exhaustive()
    }
}

/// Receives the progress of one run from the engine's thread. Its methods must not block.
pub trait Observer: Send {
    /// Called when `step` of `steps` steps are done or the phase has changed.
    fn progress(&mut self, phase: Phase, step: u32, steps: u32);
    /// Receives a preview of picture `index` after step `step`.
    fn preview(&mut self, index: u32, step: u32, frame: Frame);
    /// Receives the next portion of the run's log. Called after each [`Settings::checkpoint_interval`], after a large
    /// amount of outputs, and before the run ends with [`Reason::Lost`], [`RunError::Stopped`] or
    /// [`RunError::DeviceLost`], so that another run can resume the generation. If the observer returns the portion,
    /// the next portion begins with it.
    fn checkpoint(&mut self, _portion: Log) -> Option<Log> {
        None
    }
    /// Receives the frames of the run, not encoded yet, or the reason why it has none.
    fn ended(self: Box<Self>, outcome: Result<Vec<Frame>, RunError>);
}

/// Why a run ended without results.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    #[error("canceled")]
    Canceled(Reason),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// `what`, such as the output of a network, has numbers that are infinite or undefined. `step` counts from 1. What
    /// is computed before the first step counts as step 1, and what is computed after the last step counts as the last
    /// step.
    #[error("{what} is not finite in step {step} of {steps}")]
    NotFinite { what: String, step: u32, steps: u32 },
    #[error("the pipeline panicked")]
    Panicked,
    /// The engine stops, or its device is lost while it computes for other runs. Another run can resume the generation.
    #[error("the engine has stopped")]
    Stopped,
    /// The device was lost while it computed for this run, which may be the cause. Another run can resume the
    /// generation. The text names the device and its error.
    #[error("{0}")]
    DeviceLost(String),
}

/// Why a run was ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client canceled the generation.
    Canceled,
    /// The client that waited for the result disconnected.
    Disconnected,
    /// The worker lost or released the generation. Another run will continue it.
    Lost,
    /// The generation exceeded its time limit.
    TimedOut,
}

impl Reason {
    /// The name of the reason in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Canceled => "canceled",
            Reason::Disconnected => "disconnected",
            Reason::Lost => "lost",
            Reason::TimedOut => "timed_out",
        }
    }
}

/// Ends a run before its next step. All clones belong to the same run; the first reason wins.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicU8>);

impl Cancel {
    /// Cancels the run, unless it is canceled already.
    pub fn cancel(&self, reason: Reason) {
        let code = 1 + reason as u8;
        // If the exchange fails, the run is canceled already.
        let _ = self.0.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Why the run is canceled; `None` if it is not.
    pub fn reason(&self) -> Option<Reason> {
        [Reason::Canceled, Reason::Disconnected, Reason::Lost, Reason::TimedOut]
            .into_iter()
            .find(|reason| 1 + *reason as u8 == self.0.load(Ordering::Acquire))
    }
}

/// The limits of the engine of one device.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Maximum number of rows of one batch.
    pub max_rows: NonZeroUsize,
    /// How long a batch computes before other batches get a turn. A batch that is expected to take longer pauses at the
    /// next layer boundary.
    pub slice: Duration,
    /// Maximum bytes of memory of all runs together, in addition to the weights. See [`Settings::call_bytes`].
    pub max_bytes: u64,
    /// Maximum number of runs that compute at a time, and also of runs that wait to be admitted.
    pub max_runs: NonZeroUsize,
    /// Maximum number of prompt embeddings in the cache; 0 disables the cache.
    pub text_cache_entries: usize,
    /// Time between two portions of a run's log; `None` keeps no logs.
    pub checkpoint_interval: Option<Duration>,
}

impl Settings {
    /// The part of `max_bytes` for activations. The activations of each batch take at most this part. All paused
    /// batches and a batch that takes longer than a slice together also take at most this part. A batch of a single row
    /// may exceed the limit, except when both are true: the batch takes longer than a slice, and another batch is
    /// paused. The rest of `max_bytes` is for what runs hold during their whole life.
    pub fn call_bytes(max_bytes: u64) -> u64 {
        max_bytes / 8
    }
}

/// The stack size of the engine's thread, in bytes; Rust's default is 2 MiB. The thread polls the recipes and with them
/// the tokenizers, whose libraries may recurse deeply into a prompt. Untouched pages take no memory.
pub const ENGINE_STACK: usize = 16 << 20;

/// The handle of an engine: cheap to clone, usable from any thread. The engine's thread ends when the last handle is
/// dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    inbox: SyncSender<Run>,
}

/// The part of an engine that owns the device. [`EngineThread::run`] needs a thread of its own.
pub struct EngineThread {
    inbox: Receiver<Run>,
    device: Device,
    settings: Settings,
    metrics: Metrics,
    clock: CallClock,
    when_lost: Option<WhenLost>,
}

/// Called with the error by which the engine learned that its device is lost.
type WhenLost = Box<dyn FnOnce(&str) + Send>;

impl EngineThread {
    /// Calls `when_lost` with the reason if the device is lost, before the runs end. See
    /// [`Fault::Lost`](crate::device::Fault::Lost).
    pub fn when_lost(self, when_lost: impl FnOnce(&str) + Send + 'static) -> EngineThread {
        EngineThread { when_lost: Some(Box::new(when_lost)), ..self }
    }

    /// The clock of this engine's network calls.
    pub fn clock(&self) -> CallClock {
        self.clock.clone()
    }
}

impl std::fmt::Debug for EngineThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineThread").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Creates the engine of a device: its handle, and the part that the caller runs on a thread.
pub fn engine(device: Device, settings: Settings, metrics: Metrics) -> (Engine, EngineThread) {
    let (sender, receiver) = sync_channel(settings.max_runs.get());
    let clock = CallClock::default();
    (Engine { inbox: sender }, EngineThread { inbox: receiver, device, settings, metrics, clock, when_lost: None })
}

/// The engine did not accept the run. The variants return the run; its observer was not called.
#[derive(Debug)]
pub enum Refused {
    /// As many runs as allowed ([`Settings::max_runs`]) already wait to be admitted.
    Full(Box<Run>),
    /// The engine's thread has ended. While handles of the engine exist, the thread ends only if the device is lost or
    /// the thread panics.
    Stopped(Box<Run>),
}

impl Engine {
    /// Submits a run. Its observer is notified of its end exactly once.
    ///
    /// # Errors
    /// The engine is full or has ended; the error returns the run.
    pub fn submit(&self, run: Run) -> Result<(), Refused> {
        self.inbox.try_send(run).map_err(|error| match error {
            TrySendError::Full(run) => Refused::Full(Box::new(run)),
            TrySendError::Disconnected(run) => Refused::Stopped(Box::new(run)),
        })
    }
}
