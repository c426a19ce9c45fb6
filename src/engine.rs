//! The step-level batcher: many generations, one network call.
//!
//! A generation's pipeline is an async function that the engine's own thread polls. Where it awaits a network it has
//! left an *ask* of one or more *rows*; the engine picks rows of the same [`Key`] from any number of runs, runs them
//! as one batch and hands each run its answers. So every step of every request batches with every other, whatever its
//! sampler, its number of steps, its guidance or its prompt; to cancel a run is to drop its future; and no row ever
//! sees another, so the picture does not depend on who else was there.

mod account;
mod ask;
mod batch;
mod call;
mod drive;
mod key;
mod log;
mod mailbox;
mod pace;
mod policy;
mod recording;
mod run;
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

pub use key::Key;
pub use log::{Log, UnusablePart};
pub use policy::{Aside, Limits, Next, Pick, Waiting, choose};

use crate::{
    crash::Attempt,
    device::Device,
    generation::Phase,
    metrics::Metrics,
    pipelines::{Frame, PipelineError, Prepared},
};

/// A generation, ready to compute.
pub struct Run {
    pub prepared: Prepared,
    /// What the denoiser has answered to an earlier run of the same generation, from its first ask on.
    pub replay: Log,
    pub observer: Box<dyn Observer>,
    pub cancel: Cancel,
    /// The attempt to blame if the process aborts while it works for this run; `None` to note nothing.
    pub attempt: Option<Attempt>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("job", &self.prepared.job).finish_non_exhaustive()
    }
}

/// Told by the engine's thread how a run goes; must return at once.
pub trait Observer: Send {
    /// `step` of `steps` are done.
    fn progress(&mut self, phase: Phase, step: u32, steps: u32);
    /// A rough look at result `index` after `step`, one pixel for each latent pixel.
    fn preview(&mut self, index: u32, step: u32, frame: Frame);
    /// The next portion of the run's log, at each [`Settings::checkpoint_interval`] and before an end after which it can be
    /// begun again. What is given back is offered again with the next portion.
    fn checkpoint(&mut self, _portion: Log) -> Option<Log> {
        None
    }
    /// The run's results, not encoded yet, or why it has none.
    fn ended(self: Box<Self>, outcome: Result<Vec<Frame>, RunError>);
}

/// Why a run ended without results.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    #[error("canceled")]
    Canceled(Reason),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error("the pipeline panicked")]
    Panicked,
    /// The engine is stopping; the run can be begun again elsewhere.
    #[error("the engine is stopping")]
    Stopped,
}

/// Who ended a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its client asked.
    Canceled,
    /// Its waiting client left.
    Disconnected,
    /// Its worker lost or released it; another run will do the work again.
    Lost,
    /// It took longer than it may.
    TimedOut,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Canceled => "canceled",
            Reason::Disconnected => "disconnected",
            Reason::Lost => "lost",
            Reason::TimedOut => "timed_out",
        }
    }
}

/// Ends a run before its next step. All clones speak of the same run; the first reason stands.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicU8>);

impl Cancel {
    pub fn cancel(&self, reason: Reason) {
        let code = 1 + reason as u8;
        // Losing this race means that the run is canceled already.
        let _ = self.0.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    pub fn reason(&self) -> Option<Reason> {
        [Reason::Canceled, Reason::Disconnected, Reason::Lost, Reason::TimedOut]
            .into_iter()
            .find(|reason| 1 + *reason as u8 == self.0.load(Ordering::Acquire))
    }
}

/// How the engine of one device is bounded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most rows of one network call.
    pub max_rows: NonZeroUsize,
    /// The longest that a call of a network lasts before others have their turn, where its layers allow it.
    pub slice: Duration,
    /// Bytes of memory that the runs may take together, besides the weights: see [`Settings::call_bytes`].
    pub max_bytes: u64,
    /// Most runs that may wait to enter.
    pub max_runs: NonZeroUsize,
    pub text_cache_entries: usize,
    /// How often a run's observer is handed what was added to its log; `None` keeps no logs.
    pub checkpoint_interval: Option<Duration>,
}

impl Settings {
    /// Bytes of activations that the calls longer than a slice may hold together, of `max_bytes` for everything; one such call
    /// alone may hold more. Most of the memory is left to what runs hold for all of their time.
    pub fn call_bytes(max_bytes: u64) -> u64 {
        max_bytes / 8
    }
}

/// The stack of the engine's thread, in bytes; the default is 2 MiB. The thread polls the pipelines, and with them the tokenizers,
/// whose libraries choose how deep they recurse into a prompt. Pages that are not touched take no memory.
pub const ENGINE_STACK: usize = 16 << 20;

/// The handle: cheap to clone, usable from any thread. The engine's thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    inbox: SyncSender<Run>,
}

/// The owner of the device: [`EngineThread::run`] belongs on a thread of its own.
pub struct EngineThread {
    inbox: Receiver<Run>,
    device: Device,
    settings: Settings,
    metrics: Metrics,
}

impl std::fmt::Debug for EngineThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineThread").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The engine of a device: a handle and its owner; the caller decides where the owner runs.
pub fn engine(device: Device, settings: Settings, metrics: Metrics) -> (Engine, EngineThread) {
    let (sender, receiver) = sync_channel(settings.max_runs.get());
    (Engine { inbox: sender }, EngineThread { inbox: receiver, device, settings, metrics })
}

/// The engine did not take the run, which is given back with its observer untold.
#[derive(Debug)]
pub enum Refused {
    /// As many runs as allowed wait to enter.
    Full(Box<Run>),
    /// The engine's thread has ended.
    Stopped(Box<Run>),
}

impl Engine {
    /// Hands over a run, whose observer will be told of its end exactly once.
    ///
    /// # Errors
    /// The engine is full or has ended; the run comes back.
    pub fn submit(&self, run: Run) -> Result<(), Refused> {
        self.inbox.try_send(run).map_err(|error| match error {
            TrySendError::Full(run) => Refused::Full(Box::new(run)),
            TrySendError::Disconnected(run) => Refused::Stopped(Box::new(run)),
        })
    }
}
