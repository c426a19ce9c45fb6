//! A network call in progress: a batch of rows from several runs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    Cancel,
    account::Account,
    batch::{Batch, Computing, Items},
    batch_key::BatchKey,
};
use crate::{
    device::Device,
    models::demand::Demand,
    pipelines::{Model, NetworkError, call::Counts},
};

/// The answers of a call to its rows, in order.
type Answers = Result<Box<dyn Items>, NetworkError>;

/// A network call that has begun. It holds the activations of its rows and continues when it is advanced.
pub(super) struct Call {
    pub key: BatchKey,
    /// What each row counts as in the metrics.
    pub counts: Counts,
    computing: Computing,
    batch: Box<dyn Batch>,
    pub shares: Vec<Share>,
    /// Multiplications of all rows together.
    pub work: f64,
    pub account: Account,
    /// Maximum bytes of activations of all rows together.
    pub bytes: u64,
    /// How long the call has computed so far.
    pub spent: Duration,
    /// Whether the call may pause after a slice of time. Other calls are expected to take less than a slice.
    pub long: bool,
}

/// The rows that one run has in a call.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// The run's arrival number.
    pub run: u64,
    pub rows: usize,
    /// `None` if the run has ended. Its rows are computed, but their answers are dropped.
    cancel: Option<Cancel>,
}

impl Share {
    pub fn new(run: u64, rows: usize, cancel: Cancel) -> Share {
        Share { run, rows, cancel: Some(cancel) }
    }

    /// Whether the run was canceled and is not marked as ended yet.
    pub fn is_canceled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.reason().is_some())
    }

    /// Whether the run still needs the answers.
    pub fn is_wanted(&self) -> bool {
        self.cancel.is_some()
    }

    /// Marks the run as ended.
    pub fn give_up(&mut self) {
        self.cancel = None;
    }
}

impl Call {
    /// Starts a call. `demand` covers all rows.
    pub fn new(
        model: Arc<Model>,
        (key, counts): (BatchKey, Counts),
        mut batch: Box<dyn Batch>,
        shares: Vec<Share>,
        demand: Demand,
        long: bool,
    ) -> Call {
        let computing = batch.start(model);
        let Demand { work, bytes } = demand;
        let account = Account::new(work);
        Call { key, counts, computing, batch, shares, work, account, bytes, spent: Duration::ZERO, long }
    }

    /// Computes layer by layer until the call ends. Pauses earlier, at a layer boundary, if the call is long and
    /// `slice` is over, or if one of its runs has been canceled; the result is then `None`.
    pub fn advance(&mut self, device: &Device, slice: Duration) -> Option<Answers> {
        let begun = Instant::now();
        let Call { computing, shares, long, key, .. } = self;
        let (shares, may_pause, network) = (&*shares, *long, key.network);
        let compute = || {
            let mut context = Context::from_waker(Waker::noop());
            loop {
                if let Poll::Ready(answers) = poll(computing, network, &mut context) {
                    return Some(answers);
                }
                let is_over = may_pause && begun.elapsed() >= slice;
                if is_over || shares.iter().any(Share::is_canceled) {
                    return None;
                }
            }
        };
        let answers = device.install(compute);
        self.spent += begun.elapsed();
        answers
    }

    /// Ends a call that has no answers. Returns its runs, and their rows unless these are lost.
    pub fn give_back(self) -> (Vec<Share>, Option<Box<dyn Items>>) {
        let Call { computing, mut batch, shares, .. } = self;
        drop(computing);
        (shares, batch.take_back())
    }

    pub fn rows(&self) -> usize {
        self.shares.iter().map(|share| share.rows).sum()
    }
}

/// Polls the future; a panic ends the call with an error. A panic leaves nothing half written, because weights are
/// read-only and activations are dropped.
fn poll(computing: &mut Computing, network: &'static str, context: &mut Context<'_>) -> Poll<Answers> {
    let polled = catch_unwind(AssertUnwindSafe(|| computing.as_mut().poll(context)));
    polled.unwrap_or_else(|panic| {
        Poll::Ready(Err(NetworkError { network, detail: format!("panicked: {}", message(panic.as_ref())) }))
    })
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
