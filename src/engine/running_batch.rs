//! A batch that has begun: the rows of several runs, computed together and paused between layers.

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
    call_clock::CallClock,
};
use crate::{
    device::{Device, Fault, FaultError, Layer},
    models::demand::Demand,
    pipelines::{Model, NetworkError, call::RowMetric},
    telemetry::Moment,
};

/// The answers to the rows of a batch, in order.
type Answers = Result<Box<dyn Items>, NetworkError>;

/// A batch that has begun. It holds the activations of its rows and continues when it is advanced.
pub(super) struct RunningBatch {
    pub key: BatchKey,
    /// What each row counts as in the metrics.
    pub row_metric: RowMetric,
    computing: Computing,
    batch: Box<dyn Batch>,
    pub shares: Vec<Share>,
    /// Multiplications of all rows together.
    pub work: f64,
    pub account: Account,
    /// Maximum bytes of activations of all rows together.
    pub bytes: u64,
    /// How long the batch has computed so far.
    pub spent: Duration,
    /// When the batch began to compute.
    pub begun: Moment,
    /// Whether the batch is expected to take longer than a slice. Then it pauses after each slice.
    pub long: bool,
    /// Whether this is the last try of a single row that did not fit the memory of the device. No other batch has
    /// begun, so the row has all of the memory.
    pub is_last_try: bool,
    /// How many layers the batch has begun to compute.
    layers: usize,
}

/// The rows that one run has in a batch.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// The run's arrival number.
    pub run: u64,
    pub rows: usize,
    /// `None` if the run has ended. The rows of an ended run are still computed, but their answers are dropped.
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

impl RunningBatch {
    /// Starts a batch. It computes only in [`RunningBatch::advance`]. `demand` covers all rows.
    pub fn new(
        model: Arc<Model>,
        (key, row_metric): (BatchKey, RowMetric),
        mut batch: Box<dyn Batch>,
        shares: Vec<Share>,
        demand: Demand,
        long: bool,
    ) -> RunningBatch {
        let computing = batch.start(model);
        let Demand { work, bytes } = demand;
        let account = Account::new(work);
        let spent = Duration::ZERO;
        let (is_last_try, layers) = (false, 0);
        RunningBatch {
            key,
            row_metric,
            computing,
            batch,
            shares,
            work,
            account,
            bytes,
            spent,
            begun: Moment::now(),
            long,
            is_last_try,
            layers,
        }
    }

    /// Computes layer by layer until the batch ends. Pauses earlier, at a layer boundary, if the batch is long and
    /// `slice` is over, or if one of its runs has been canceled; the result is then `None`.
    pub fn advance(&mut self, device: &Device, slice: Duration, clock: &CallClock) -> Option<Answers> {
        let begun = Instant::now();
        let (rows, bytes) = (self.rows(), self.bytes);
        let RunningBatch { computing, shares, long, key, layers, .. } = self;
        let (shares, may_pause, network, precision) = (&*shares, *long, key.network, key.precision);
        let compute = || {
            let mut context = Context::from_waker(Waker::noop());
            loop {
                let _timed = clock.time(network);
                if let Err(error) = device.before(Layer { network, rows, bytes, index: *layers }) {
                    return Some(Err(NetworkError { network, fault: error.fault, detail: error.detail }));
                }
                *layers += 1;
                if let Poll::Ready(answers) = poll(computing, network, &mut context) {
                    return Some(answers);
                }
                let is_over = may_pause && begun.elapsed() >= slice;
                if is_over || shares.iter().any(Share::is_canceled) {
                    return None;
                }
            }
        };
        let mut answers = device.install_with(precision, compute);
        // A GPU may still compute the layers that were submitted. The time and the errors of these layers belong to
        // this slice, so the engine waits for the GPU. An error of a call may hide that the device is lost: some
        // library reports the loss as an error of its own. Then waiting fails, too.
        let fault = match &answers {
            Some(Err(error)) => Some(error.fault),
            _ => None,
        };
        if matches!(fault, None | Some(Fault::Call)) {
            let _timed = clock.time(network);
            if let Err(FaultError { fault: found, detail }) = device.synchronize()
                && (fault.is_none() || found == Fault::Lost)
            {
                answers = Some(Err(NetworkError { network, fault: found, detail }));
            }
        }
        self.spent += begun.elapsed();
        answers
    }

    /// Ends a batch that has no answers. Returns the shares of its runs, and the rows if [`Batch::take_back`] returns
    /// them.
    pub fn give_back(self) -> (Vec<Share>, Option<Box<dyn Items>>) {
        let RunningBatch { computing, mut batch, shares, .. } = self;
        drop(computing);
        (shares, batch.take_back())
    }

    pub fn rows(&self) -> usize {
        self.shares.iter().map(|share| share.rows).sum()
    }
}

/// Polls the future; a panic ends the batch with an error. A panic leaves nothing half written, because weights are
/// read-only and activations are dropped.
fn poll(computing: &mut Computing, network: &'static str, context: &mut Context<'_>) -> Poll<Answers> {
    let polled = catch_unwind(AssertUnwindSafe(|| computing.as_mut().poll(context)));
    polled.unwrap_or_else(|panic| {
        Poll::Ready(Err(NetworkError::new(network, format!("panicked: {}", message(panic.as_ref())))))
    })
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
