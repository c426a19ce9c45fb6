//! One network call under way.

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
    key::Key,
};
use crate::{
    device::Device,
    models::demand::Demand,
    pipelines::{Model, NetworkError, call::Counts},
};

/// The answers of a call to its rows, in order.
type Answers = Result<Box<dyn Items>, NetworkError>;

/// A call that has begun. It holds the activations of its rows, and continues whenever it is polled.
pub(super) struct Call {
    pub key: Key,
    /// What each row counts as.
    pub counts: Counts,
    computing: Computing,
    batch: Box<dyn Batch>,
    pub shares: Vec<Share>,
    /// Multiplications for all rows.
    pub work: f64,
    pub account: Account,
    /// Bytes of activations for all rows, at most.
    pub bytes: u64,
    /// How long it has computed.
    pub spent: Duration,
    /// Whether it may be put aside after a slice of time. Others take less than a slice.
    pub long: bool,
}

/// The rows of one run in a call.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// The run, by its arrival.
    pub run: u64,
    pub rows: usize,
    /// `None`: the run is gone, and the rows are computed for nobody.
    cancel: Option<Cancel>,
}

impl Share {
    pub fn new(run: u64, rows: usize, cancel: Cancel) -> Share {
        Share { run, rows, cancel: Some(cancel) }
    }

    pub fn is_canceled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.reason().is_some())
    }

    pub fn is_wanted(&self) -> bool {
        self.cancel.is_some()
    }

    /// The run is gone.
    pub fn give_up(&mut self) {
        self.cancel = None;
    }
}

impl Call {
    /// `demand` is that of all rows together.
    pub fn new(
        model: Arc<Model>,
        (key, counts): (Key, Counts),
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

    /// Computes layer after layer: to the end, to the first pause after `slice` if the call is long, or to the first pause
    /// after one of its runs was canceled. `None`: it has not ended.
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

    /// The runs of a call that has ended without answers, and their rows; `None` where these are lost.
    pub fn give_back(self) -> (Vec<Share>, Option<Box<dyn Items>>) {
        let Call { computing, mut batch, shares, .. } = self;
        drop(computing);
        (shares, batch.take_back())
    }

    pub fn rows(&self) -> usize {
        self.shares.iter().map(|share| share.rows).sum()
    }
}

/// The networks hold nothing that a panic could leave half written: weights are read-only, activations are dropped. A call that
/// panicked has ended.
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
