//! The loop of the engine's thread: admits runs, polls them, and computes their network calls.

mod out_of_memory;

use std::{
    sync::mpsc::{RecvTimeoutError, TryRecvError},
    time::Duration,
};

use super::{
    BatchLimits, CallClock, EngineThread, Reason, Run, RunError, Settings,
    batch::Items,
    pace::Pace,
    policy::{Next, PausedBatch, Pick, Turn, WaitingCall, choose},
    recording::Recording,
    row_limits::RowLimits,
    run::Active,
    run_trace::record_batch,
    running_batch::{RunningBatch, Share},
    text_cache::Cache,
};
use crate::{
    device::{Device, Fault},
    metrics::Metrics,
    models::demand::Demand,
    pipelines::{NetworkError, PipelineError, call::RowMetric},
};

/// How long an idle engine waits before it releases memory.
const IDLE: Duration = Duration::from_secs(10);

impl EngineThread {
    /// Works until all handles are dropped or the device is lost. Runs that have not ended by then end with
    /// [`RunError::Stopped`], or with [`RunError::DeviceLost`] if the lost device was computing for them.
    pub fn run(mut self) {
        self.device.pin_current_thread();
        let mut active = ActiveRuns {
            device: self.device.clone(),
            limits: BatchLimits {
                max_rows: self.settings.max_rows,
                slice_s: self.settings.slice.as_secs_f64(),
                max_bytes: Settings::call_bytes(self.settings.max_bytes),
                free: u64::MAX,
            },
            max_runs: self.settings.max_runs.get(),
            checkpoint_interval: self.settings.checkpoint_interval,
            metrics: self.metrics.clone(),
            cache: Cache::new(self.settings.text_cache_entries, self.metrics.clone()),
            pace: Pace::default(),
            row_limits: RowLimits::default(),
            clock: self.clock.clone(),
            runs: Vec::new(),
            paused: Vec::new(),
            arrivals: 0,
            lost: None,
        };
        while active.lost.is_none() && self.admit(&mut active) {
            active.drop_canceled();
            active.poll();
            if active.lost.is_none() {
                active.compute();
            }
        }
        if let Some(Loss { error, .. }) = &active.lost {
            tracing::error!(device = self.device.name(), runs = active.runs.len(), "a device is lost: {error}");
            // This call comes before the observers learn that their runs have ended, so that no run is given to this
            // device again.
            if let Some(when_lost) = self.when_lost.take() {
                when_lost(&error.to_string());
            }
            self.inbox.try_iter().for_each(|run| active.enter(run));
        }
        active.stop();
    }

    /// Waits for the next run. If no run arrives within [`IDLE`], gives the memory of earlier runs back to the system
    /// and goes on waiting. `None` if all handles of the engine are dropped.
    fn wait(&self) -> Option<Run> {
        match self.inbox.recv_timeout(IDLE) {
            Ok(run) => Some(run),
            Err(RecvTimeoutError::Timeout) => {
                self.device.release_memory();
                self.inbox.recv().ok()
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Admits runs from the inbox, at most `max_runs` at a time. Blocks only if no run is active. False if all handles
    /// of the engine are dropped.
    fn admit(&self, active: &mut ActiveRuns) -> bool {
        if active.runs.is_empty() {
            match self.wait() {
                Some(run) => active.enter(run),
                None => return false,
            }
        }
        while active.runs.len() < active.max_runs {
            match self.inbox.try_recv() {
                Ok(run) => active.enter(run),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }
}

/// The runs that the engine works on, and their shared state.
struct ActiveRuns {
    /// The device that computes the networks.
    device: Device,
    limits: BatchLimits,
    max_runs: usize,
    checkpoint_interval: Option<Duration>,
    metrics: Metrics,
    cache: Cache,
    pace: Pace,
    /// How many rows fit the memory of the device.
    row_limits: RowLimits,
    clock: CallClock,
    runs: Vec<Active>,
    /// Batches that have begun and wait to continue. Each run has rows in at most one batch.
    paused: Vec<RunningBatch>,
    arrivals: u64,
    /// `None` while the device is not lost.
    lost: Option<Loss>,
}

/// The loss of the device.
struct Loss {
    /// The error by which the engine learned of the loss.
    error: NetworkError,
    /// The arrival numbers of the runs for which the device was computing. If a run has caused the loss, it is one of
    /// these runs: between two slices, a device computes for no run (it may only load a model).
    during: Vec<u64>,
}

impl ActiveRuns {
    /// Admits a run. The policy gives the turn to the run with the least service, and the work that a run is charged
    /// for is added to its service. A new run starts with the least service of the active runs. So it neither gets many
    /// turns in a row nor has to wait for many turns of other runs. A film shares the account of the other films of its
    /// model, so it starts with their service. Its own charges start at the smallest own charges of these films.
    fn enter(&mut self, mut run: Run) {
        let least = |of: &dyn Fn(&Active) -> Option<f64>| self.runs.iter().filter_map(of).reduce(f64::min);
        let films = run.prepared.job.work.film().map(|_| run.prepared.model.key.clone());
        let shares = |run: &Active| films.is_some() && run.films == films;
        let service = least(&|run| shares(run).then_some(run.service)).or_else(|| least(&|run| Some(run.service)));
        let own = least(&|run| shares(run).then_some(run.own));
        let (service, own) = (service.unwrap_or(0.0), own.unwrap_or(0.0));
        let (known, replayed) = (std::mem::take(&mut run.replay), self.metrics.replayed_steps.clone());
        let recording = Recording::new(known, self.checkpoint_interval, replayed);
        self.runs.push(Active::new(run, recording, self.arrivals, films, (service, own)));
        self.arrivals += 1;
    }

    fn drop_canceled(&mut self) {
        let canceled: Vec<Active> = self.runs.extract_if(.., |run| run.cancel.reason().is_some()).collect();
        // A batch continues for its remaining runs and is dropped if there are none. A batch keeps its model alive, but
        // when an observer learns that its run has ended, the engine must no longer hold the model. So the batch is
        // dropped first.
        let is_gone = |share: &Share| canceled.iter().any(|run| run.arrival == share.run);
        for batch in &mut self.paused {
            batch.shares.iter_mut().filter(|share| is_gone(share)).for_each(Share::give_up);
        }
        self.paused.retain(|batch| batch.shares.iter().any(Share::is_wanted));
        for mut run in canceled {
            if let Some(reason) = run.cancel.reason() {
                let wasted = match reason {
                    Reason::Lost => run.give_up(),
                    Reason::Canceled | Reason::Disconnected | Reason::TimedOut => run.steps,
                };
                self.metrics.wasted_steps.with_label_values(&[reason.as_str()]).inc_by(wasted);
                run.end(Err(RunError::Canceled(reason)));
            }
        }
    }

    /// Polls each run that can continue, until it awaits a call or ends. Stops if the device is lost.
    fn poll(&mut self) {
        let mut index = 0;
        while index < self.runs.len() {
            let run = &mut self.runs[index];
            let ended = if run.is_ready() { run.poll() } else { None };
            match ended {
                // The recipe read an output from the device and learned that the device is lost.
                Some(Err(RunError::Pipeline(PipelineError::Network(error)))) if error.fault == Fault::Lost => {
                    self.lost = Some(Loss { error, during: vec![run.arrival] });
                    return;
                }
                Some(outcome) => self.runs.remove(index).end(outcome),
                // The cache has answered the call at once, so the run is polled again.
                None if self.answer_from_cache(index) => {}
                None => index += 1,
            }
        }
    }

    /// Tries to answer all open rows of the run's pending call from the cache, and returns whether it could.
    fn answer_from_cache(&mut self, index: usize) -> bool {
        let Some(hits) = self.runs[index].answer_from(&mut self.cache) else { return false };
        self.metrics.text_cache.with_label_values(&["hit"]).inc_by(hits as u64);
        true
    }

    /// Ends all runs. Other runs can resume their generations.
    fn stop(self) {
        let ActiveRuns { device, runs, paused, metrics, lost, .. } = self;
        // A batch keeps its model alive, so the batches are dropped before the runs end.
        drop(paused);
        for run in runs {
            let loss = lost.as_ref().filter(|loss| loss.during.contains(&run.arrival));
            let error = loss.map_or(RunError::Stopped, |loss| {
                RunError::DeviceLost(format!("the device {} was lost: {}", device.name(), loss.error))
            });
            run.release(error, &metrics);
        }
    }

    /// Computes what the policy chooses: a new batch, or the next slice of a paused batch.
    fn compute(&mut self) {
        match self.next() {
            Next::Nothing => {}
            Next::Continue { batch, charged } => {
                let batch = self.paused.swap_remove(batch);
                self.advance(batch, charged.map(|run| self.runs[run].arrival));
            }
            Next::Begin { picks, charged } => {
                let batch = self.begin(&picks);
                self.advance(batch, charged.map(|run| self.runs[run].arrival));
            }
        }
    }

    /// Asks the policy what to compute next. Runs in the result are indices into `runs`.
    fn next(&self) -> Next {
        let waiting = |(index, run)| Some((index, self.waiting(run)?));
        let (open, waiting): (Vec<usize>, Vec<WaitingCall>) = self.runs.iter().enumerate().filter_map(waiting).unzip();
        let paused: Vec<PausedBatch> = self.paused.iter().map(|batch| self.paused_batch(batch)).collect();
        let of_runs = |run: usize| open[run];
        // New batches consist of rows of waiting calls, so without waiting calls the free memory is not needed. If the
        // device has its own memory, its free memory also limits the number of rows of a new batch.
        let free = if waiting.is_empty() { None } else { self.device.bytes_for_batch() };
        match choose(&waiting, &paused, BatchLimits { free: free.unwrap_or(u64::MAX), ..self.limits }) {
            Next::Begin { picks, charged } => Next::Begin {
                picks: picks.into_iter().map(|pick| Pick { waiting: of_runs(pick.waiting), ..pick }).collect(),
                charged: charged.map(of_runs),
            },
            Next::Continue { batch, charged } => Next::Continue { batch, charged: charged.map(of_runs) },
            Next::Nothing => Next::Nothing,
        }
    }

    /// The pending call of a run, in the form that the policy needs. `None` if the call has no open rows, or if some of
    /// its rows are in a batch.
    fn waiting(&self, run: &Active) -> Option<WaitingCall> {
        let holds = run.holds();
        run.with_open(|pending_call| {
            let (key, rows, demand) = (pending_call.key().clone(), pending_call.open_rows(), pending_call.demand());
            let picture = pending_call.stage().map_or(0, |stage| stage.latent_pixels);
            let begins = if holds == 0 { rows * picture } else { 0 };
            let seconds = self.pace.seconds(&key, demand.work);
            let most_rows = pending_call.most_rows().min(self.row_limits.most(&key));
            let (bytes, turn, is_film) = (demand.bytes, self.turn(run), run.films.is_some());
            WaitingCall { key, rows, most_rows, seconds, bytes, turn, is_film, picture, holds, begins }
        })
    }

    /// The place of a run in the order of turns.
    fn turn(&self, run: &Active) -> Turn {
        let account = self.runs.iter().filter(|other| other.shares_account(run)).map(|other| other.arrival).min();
        let account = account.unwrap_or(run.arrival);
        Turn { service: run.service, account, own: run.own, arrival: run.arrival }
    }

    /// A paused batch, in the form that the policy needs.
    fn paused_batch(&self, batch: &RunningBatch) -> PausedBatch {
        let runs = || batch.shares.iter().filter_map(|share| self.runs.iter().find(|run| run.arrival == share.run));
        let turn = runs().map(|run| self.turn(run)).min_by(Turn::order);
        PausedBatch {
            key: batch.key.clone(),
            // A batch whose runs have all ended is last in the order.
            turn: turn.unwrap_or(Turn::alone(f64::INFINITY, 0)),
            is_film: runs().all(|run| run.films.is_some()),
            bytes: batch.bytes,
            picture: runs().map(Active::picture).max().unwrap_or(0),
            holds: runs().map(Active::holds).sum(),
        }
    }

    /// Starts a batch of the picked rows. There is at least one pick, and all picks have the same key.
    fn begin(&self, picks: &[Pick]) -> RunningBatch {
        const OPEN: &str = "the policy picks runs whose pending calls have open rows";
        let first = &self.runs[picks[0].waiting];
        let (key, row_metric) =
            first.with_open(|pending_call| (pending_call.key().clone(), pending_call.row_metric())).expect(OPEN);
        let (mut batch, mut demand) = (None, Demand::default());
        let mut shares = Vec::with_capacity(picks.len());
        for &Pick { waiting, rows } in picks {
            let run = &self.runs[waiting];
            let Demand { work, bytes } = run.with_open(|pending_call| pending_call.demand()).expect(OPEN);
            demand = demand.and(Demand { work: rows as f64 * work, bytes: rows as u64 * bytes });
            batch = run.take_up(rows, batch);
            shares.push(Share::new(run.arrival, rows, run.cancel.clone()));
        }
        let model = first.model(&key);
        let long = self.pace.seconds(&key, demand.work) > self.limits.slice_s;
        RunningBatch::new(model, (key, row_metric), batch.expect(OPEN), shares, demand, long)
    }

    /// Lets a batch compute for one slice, and delivers its answers if it has ended. The run with the arrival number
    /// `payer`, if any, is charged instead of the runs of the batch.
    fn advance(&mut self, mut batch: RunningBatch, payer: Option<u64>) {
        let slice = Duration::from_secs_f64(self.limits.slice_s);
        let before = batch.spent;
        let advanced = batch.advance(&self.device, slice, &self.clock);
        self.metrics.offload_copied_bytes.with_label_values(&[self.device.name()]).inc_by(self.device.take_copied());
        let Some(answers) = advanced else {
            let price = batch.account.slice((batch.spent - before).as_secs_f64(), self.pace.seconds(&batch.key, 1.0));
            self.charge(&batch, price, payer);
            self.paused.push(batch);
            return;
        };
        let price = batch.account.rest();
        self.charge(&batch, price, payer);
        self.trace(&batch, answers.as_ref().err().map(|error| error.fault));
        match answers {
            Ok(mut answers) => self.hand_over(&batch, answers.as_mut()),
            Err(error) => {
                let device = self.device.name();
                tracing::warn!(%error, device, runs = batch.shares.len(), rows = batch.rows(), "a batch failed");
                match error.fault {
                    Fault::OutOfMemory => self.make_fit(batch, &error),
                    Fault::Lost => {
                        let during = batch.shares.iter().map(|share| share.run).collect();
                        self.lost = Some(Loss { error, during });
                    }
                    Fault::Call => self.try_alone(batch, error),
                }
            }
        }
    }

    /// Records a batch that has ended in the traces of its runs.
    fn trace(&self, batch: &RunningBatch, fault: Option<Fault>) {
        let run = |share: &Share| Some((&self.runs.iter().find(|run| run.arrival == share.run)?.trace, share.rows));
        record_batch(batch.shares.iter().filter_map(run), batch, self.device.name(), fault);
    }

    /// Charges `price` to `payer`, the run that gave its turn to this batch. Without a payer, charges the runs of the
    /// batch, in proportion to their rows.
    fn charge(&mut self, batch: &RunningBatch, price: f64, payer: Option<u64>) {
        if let Some(payer) = payer.filter(|payer| self.runs.iter().any(|run| run.arrival == *payer)) {
            return self.charge_run(payer, price);
        }
        let per_row = price / batch.rows().max(1) as f64;
        batch.shares.iter().for_each(|share| self.charge_run(share.run, share.rows as f64 * per_row));
    }

    /// Charges the run with this arrival number, if it is active. The price is added to the service of all runs that
    /// share its account.
    fn charge_run(&mut self, arrival: u64, price: f64) {
        let Some(index) = self.runs.iter().position(|run| run.arrival == arrival) else { return };
        self.runs[index].own += price;
        for other in 0..self.runs.len() {
            if self.runs[other].shares_account(&self.runs[index]) {
                self.runs[other].service += price;
            }
        }
    }

    /// Delivers the answers of a batch to its runs, and updates the metrics and the pace.
    fn hand_over(&mut self, batch: &RunningBatch, answers: &mut dyn Items) {
        let (seconds, rows) = (batch.spent.as_secs_f64(), batch.rows());
        self.pace.learn(&batch.key, batch.work, seconds);
        self.row_limits.fits(&batch.key, rows);
        let device = self.device.name();
        self.metrics.batch_seconds.with_label_values(&[device, batch.key.network]).observe(seconds);
        let is_step = matches!(batch.row_metric, RowMetric::Step | RowMetric::ShallowStep);
        if is_step {
            self.metrics.batch_rows.observe(rows as f64);
            self.metrics.batch_runs.observe(batch.shares.len() as f64);
            self.metrics.steps.inc_by(rows as u64);
            self.metrics.device_steps.with_label_values(&[device]).inc_by(rows as u64);
        }
        if batch.row_metric == RowMetric::ShallowStep {
            self.metrics.shallow_steps.inc_by(rows as u64);
        }
        for share in &batch.shares {
            let Some(run) = self.runs.iter_mut().find(|run| run.arrival == share.run) else {
                answers.skip(share.rows);
                continue;
            };
            if is_step {
                run.steps += share.rows as u64;
            }
            run.answer(answers, &mut self.cache);
        }
    }

    /// A bad row must not fail the rows of other runs, so the rows of each run are retried alone. If the batch has only
    /// one run, its call fails.
    fn try_alone(&mut self, batch: RunningBatch, error: NetworkError) {
        let was_alone = batch.shares.len() == 1;
        let (shares, mut rows) = batch.give_back();
        for share in shares {
            let Some(index) = self.runs.iter().position(|run| run.arrival == share.run) else {
                rows.iter_mut().for_each(|rows| rows.skip(share.rows));
                continue;
            };
            match &mut rows {
                Some(rows) if !was_alone => {
                    self.runs[index].let_go(rows.as_mut());
                    let again = self.begin(&[Pick { waiting: index, rows: share.rows }]);
                    self.paused.push(again);
                }
                _ => self.runs[index].fail(error.clone().into()),
            }
        }
    }
}
