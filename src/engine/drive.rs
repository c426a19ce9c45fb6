//! The engine's loop.

use std::{
    sync::mpsc::{RecvTimeoutError, TryRecvError},
    time::Duration,
};

use super::{
    EngineThread, Limits, Reason, Run, RunError, Settings,
    batch::Items,
    call::{Call, Share},
    pace::Pace,
    policy::{Aside, Next, Pick, Waiting, choose},
    recording::Recording,
    run::Active,
    text_cache::Cache,
};
use crate::{
    device::Device,
    kernels::arena,
    metrics::Metrics,
    models::demand::Demand,
    pipelines::{NetworkError, call::Counts},
};

/// An engine without work waits this long before it gives memory back.
const IDLE: Duration = Duration::from_secs(10);

impl EngineThread {
    /// Works until every handle is dropped; runs that have not ended by then are told that the engine stopped.
    pub fn run(self) {
        self.device.stay();
        let mut floor = Floor {
            device: self.device.clone(),
            limits: Limits {
                max_rows: self.settings.max_rows,
                slice_s: self.settings.slice.as_secs_f64(),
                max_bytes: Settings::call_bytes(self.settings.max_bytes),
            },
            max_runs: self.settings.max_runs.get(),
            checkpoint_interval: self.settings.checkpoint_interval,
            metrics: self.metrics.clone(),
            cache: Cache::new(self.settings.text_cache_entries, self.metrics.clone()),
            pace: Pace::default(),
            runs: Vec::new(),
            aside: Vec::new(),
            arrivals: 0,
        };
        loop {
            if !self.admit(&mut floor) {
                break;
            }
            floor.drop_canceled();
            floor.poll();
            floor.compute();
        }
        for mut run in floor.runs {
            floor.metrics.wasted_steps.with_label_values(&["lost"]).inc_by(run.give_up());
            run.end(Err(RunError::Stopped));
        }
    }

    /// The next run. When none comes for a while, the memory of the last ones goes back to the system.
    fn wait(&self) -> Option<Run> {
        match self.inbox.recv_timeout(IDLE) {
            Ok(run) => Some(run),
            Err(RecvTimeoutError::Timeout) => {
                arena::release();
                self.inbox.recv().ok()
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Takes what the inbox holds, up to the bound; sleeps only where there is nothing to do. False: all handles are gone.
    fn admit(&self, floor: &mut Floor) -> bool {
        if floor.runs.is_empty() {
            match self.wait() {
                Some(run) => floor.enter(run),
                None => return false,
            }
        }
        while floor.runs.len() < floor.max_runs {
            match self.inbox.try_recv() {
                Ok(run) => floor.enter(run),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }
}

/// The runs at work and what they share.
struct Floor {
    /// Where networks compute.
    device: Device,
    limits: Limits,
    max_runs: usize,
    checkpoint_interval: Option<Duration>,
    metrics: Metrics,
    cache: Cache,
    pace: Pace,
    runs: Vec<Active>,
    /// Calls that have begun and wait for their turn to continue. A run has rows in one call at most.
    aside: Vec<Call>,
    arrivals: u64,
}

impl Floor {
    /// A new run starts at the least service of those present: it is neither behind nor ahead of them.
    fn enter(&mut self, mut run: Run) {
        let least = self.runs.iter().map(|run| run.service).reduce(f64::min).unwrap_or(0.0);
        let (known, replayed) = (std::mem::take(&mut run.replay), self.metrics.replayed_steps.clone());
        let recording = Recording::new(known, self.checkpoint_interval, replayed);
        self.runs.push(Active::new(run, recording, self.arrivals, least));
        self.arrivals += 1;
    }

    fn drop_canceled(&mut self) {
        let canceled: Vec<Active> = self.runs.extract_if(.., |run| run.cancel.reason().is_some()).collect();
        // A call goes on for the runs that are left, and ends without any. It holds its model: whoever hears that a run has
        // ended may rely on the model being free.
        let is_gone = |share: &Share| canceled.iter().any(|run| run.arrival == share.run);
        for call in &mut self.aside {
            call.shares.iter_mut().filter(|share| is_gone(share)).for_each(Share::give_up);
        }
        self.aside.retain(|call| call.shares.iter().any(Share::is_wanted));
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

    /// Polls every run that can go on until it asks again or ends.
    fn poll(&mut self) {
        let mut index = 0;
        while index < self.runs.len() {
            let run = &mut self.runs[index];
            let ended = if run.is_ready() { run.poll() } else { None };
            match ended {
                Some(outcome) => self.runs.remove(index).end(outcome),
                // An ask for known prompts is answered on the spot, and the run goes on.
                None if self.answer_from_cache(index) => {}
                None => index += 1,
            }
        }
    }

    /// Whether every open row of the run's ask was in the cache.
    fn answer_from_cache(&mut self, index: usize) -> bool {
        let Some(hits) = self.runs[index].answer_from(&mut self.cache) else { return false };
        self.metrics.text_cache.with_label_values(&["hit"]).inc_by(hits as u64);
        true
    }

    /// The next call, or the next slice of one that was put aside.
    fn compute(&mut self) {
        match self.next() {
            Next::Nothing => {}
            Next::Continue { call, for_run } => {
                let call = self.aside.swap_remove(call);
                self.advance(call, for_run.map(|run| self.runs[run].arrival));
            }
            Next::Begin { picks, for_run } => {
                let call = self.begin(&picks);
                self.advance(call, for_run.map(|run| self.runs[run].arrival));
            }
        }
    }

    /// What the policy says; runs are indices of `runs`.
    fn next(&self) -> Next {
        let waiting = |(index, run)| Some((index, self.waiting(run)?));
        let (open, waiting): (Vec<usize>, Vec<Waiting>) = self.runs.iter().enumerate().filter_map(waiting).unzip();
        let aside: Vec<Aside> = self.aside.iter().map(|call| self.seen_aside(call)).collect();
        let of_runs = |run: usize| open[run];
        match choose(&waiting, &aside, self.limits) {
            Next::Begin { picks, for_run } => Next::Begin {
                picks: picks.into_iter().map(|pick| Pick { waiting: of_runs(pick.waiting), ..pick }).collect(),
                for_run: for_run.map(of_runs),
            },
            Next::Continue { call, for_run } => Next::Continue { call, for_run: for_run.map(of_runs) },
            Next::Nothing => Next::Nothing,
        }
    }

    /// The run's open ask, as the policy sees it.
    fn waiting(&self, run: &Active) -> Option<Waiting> {
        let holds = run.holds();
        run.with_open(|ask| {
            let (key, rows, demand) = (ask.key().clone(), ask.open_rows(), ask.demand());
            let begins = ask.stage().filter(|_| holds == 0).map_or(0, |stage| rows * stage.latent_pixels);
            let seconds = self.pace.seconds(&key, demand.work);
            let (most_rows, bytes, service, arrival) = (ask.most_rows(), demand.bytes, run.service, run.arrival);
            Waiting { key, rows, most_rows, seconds, bytes, service, arrival, holds, begins }
        })
    }

    fn seen_aside(&self, call: &Call) -> Aside {
        let runs = || call.shares.iter().filter_map(|share| self.runs.iter().find(|run| run.arrival == share.run));
        Aside {
            service: runs().map(|run| run.service).fold(f64::INFINITY, f64::min),
            arrival: runs().map(|run| run.arrival).min().unwrap_or(0),
            bytes: call.bytes,
            holds: runs().map(Active::holds).sum(),
        }
    }

    /// One network call for the picked rows, of which there are some and which have one key.
    fn begin(&self, picks: &[Pick]) -> Call {
        const OPEN: &str = "the policy picks runs whose asks are open";
        let first = &self.runs[picks[0].waiting];
        let (key, counts) = first.with_open(|ask| (ask.key().clone(), ask.counts())).expect(OPEN);
        let (mut batch, mut demand) = (None, Demand::default());
        let mut shares = Vec::with_capacity(picks.len());
        for &Pick { waiting, rows } in picks {
            let run = &self.runs[waiting];
            let Demand { work, bytes } = run.with_open(|ask| ask.demand()).expect(OPEN);
            demand = demand.and(Demand { work: rows as f64 * work, bytes: rows as u64 * bytes });
            batch = run.take_up(rows, batch);
            shares.push(Share::new(run.arrival, rows, run.cancel.clone()));
        }
        let model = first.model(&key);
        let long = self.pace.seconds(&key, demand.work) > self.limits.slice_s;
        Call::new(model, (key, counts), batch.expect(OPEN), shares, demand, long)
    }

    /// Lets a call compute, and hands over its answers if it has ended. `payer` is charged for it in place of the call's runs.
    fn advance(&mut self, mut call: Call, payer: Option<u64>) {
        let slice = Duration::from_secs_f64(self.limits.slice_s);
        let before = call.spent;
        let Some(answers) = call.advance(&self.device, slice) else {
            let price = call.account.slice((call.spent - before).as_secs_f64(), self.pace.seconds(&call.key, 1.0));
            self.charge(&call, price, payer);
            self.aside.push(call);
            return;
        };
        let price = call.account.rest();
        self.charge(&call, price, payer);
        match answers {
            Ok(mut answers) => self.hand_over(&call, answers.as_mut()),
            Err(error) => {
                tracing::warn!(%error, runs = call.shares.len(), "a batch failed");
                self.try_alone(call, error);
            }
        }
    }

    /// Charges the call's runs, or the run that has given it its turn.
    fn charge(&mut self, call: &Call, price: f64, payer: Option<u64>) {
        if let Some(payer) = payer.and_then(|payer| self.runs.iter_mut().find(|run| run.arrival == payer)) {
            payer.service += price;
            return;
        }
        let per_row = price / call.rows().max(1) as f64;
        for share in &call.shares {
            if let Some(run) = self.runs.iter_mut().find(|run| run.arrival == share.run) {
                run.service += share.rows as f64 * per_row;
            }
        }
    }

    fn hand_over(&mut self, call: &Call, answers: &mut dyn Items) {
        let (seconds, rows) = (call.spent.as_secs_f64(), call.rows());
        self.pace.learn(&call.key, call.work, seconds);
        let device = self.device.name();
        self.metrics.batch_seconds.with_label_values(&[device, call.key.network]).observe(seconds);
        let is_step = matches!(call.counts, Counts::Step | Counts::ShallowStep);
        if is_step {
            self.metrics.batch_rows.observe(rows as f64);
            self.metrics.batch_runs.observe(call.shares.len() as f64);
            self.metrics.steps.inc_by(rows as u64);
            self.metrics.device_steps.with_label_values(&[device]).inc_by(rows as u64);
        }
        if call.counts == Counts::ShallowStep {
            self.metrics.shallow_steps.inc_by(rows as u64);
        }
        for share in &call.shares {
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

    /// One bad row must not fail its neighbors: each run's rows are tried once more alone.
    fn try_alone(&mut self, call: Call, error: NetworkError) {
        let was_alone = call.shares.len() == 1;
        let (shares, mut rows) = call.give_back();
        for share in shares {
            let Some(index) = self.runs.iter().position(|run| run.arrival == share.run) else {
                rows.iter_mut().for_each(|rows| rows.skip(share.rows));
                continue;
            };
            match &mut rows {
                Some(rows) if !was_alone => {
                    self.runs[index].let_go(rows.as_mut());
                    let again = self.begin(&[Pick { waiting: index, rows: share.rows }]);
                    self.aside.push(again);
                }
                _ => self.runs[index].fail(error.clone()),
            }
        }
    }
}
