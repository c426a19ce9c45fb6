//! The engine's loop.

use std::{
    sync::mpsc::{RecvTimeoutError, TryRecvError},
    time::Duration,
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{
    COMPUTE_STACK, EngineThread, Limits, Reason, Run, RunError, Settings,
    ask::{Answer, Key, Network, Row},
    call::{Call, Share},
    pace::Pace,
    policy::{Aside, Next, Pick, Waiting, choose},
    recording::Recording,
    run::Active,
    text_cache::{Prompt, TextCache},
};
use crate::{
    kernels::arena,
    metrics::Metrics,
    models::demand::Demand,
    pipelines::{Depth, NetworkError},
};

/// An engine without work waits this long before it gives memory back.
const IDLE: Duration = Duration::from_secs(10);

impl EngineThread {
    /// Works until every handle is dropped; runs that have not ended by then are told that the engine stopped.
    pub fn run(self) {
        let threads = ThreadPoolBuilder::new().num_threads(self.settings.threads).stack_size(COMPUTE_STACK);
        let pool = match threads.thread_name(|i| format!("compute-{i}")).build() {
            Ok(pool) => Some(pool),
            Err(error) => {
                tracing::error!(%error, "the compute threads cannot be made, the global pool computes instead");
                None
            }
        };
        let mut floor = Floor {
            pool,
            limits: Limits {
                max_rows: self.settings.max_rows,
                slice_s: self.settings.slice.as_secs_f64(),
                max_bytes: Settings::call_bytes(self.settings.max_bytes),
            },
            max_runs: self.settings.max_runs.get(),
            checkpoint_interval: self.settings.checkpoint_interval,
            metrics: self.metrics.clone(),
            cache: TextCache::new(self.settings.text_cache_entries),
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
    /// Where networks compute; `None` for the process's global pool.
    pool: Option<ThreadPool>,
    limits: Limits,
    max_runs: usize,
    checkpoint_interval: Option<Duration>,
    metrics: Metrics,
    cache: TextCache,
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
        let cache = &mut self.cache;
        let known = self.runs[index].with_open(|ask| {
            let rows = ask.rows[ask.answers.len()..].iter();
            let prompts = rows.map(|row| prompt_of(&ask.key, row)).collect::<Option<Vec<_>>>()?;
            prompts.iter().map(|prompt| cache.get(prompt)).collect::<Option<Vec<_>>>()
        });
        let Some(Some(embeddings)) = known else { return false };
        self.metrics.text_cache.with_label_values(&["hit"]).inc_by(embeddings.len() as u64);
        self.runs[index].answer(embeddings.into_iter().map(Answer::Text));
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
        let open: Vec<(usize, Key, usize, Demand)> = (self.runs.iter().enumerate())
            .filter_map(|(index, run)| run.with_open(|ask| (index, ask.key.clone(), ask.open_rows(), ask.demand)))
            .collect();
        let waiting: Vec<Waiting<'_>> = (open.iter())
            .map(|(index, key, rows, demand)| {
                let run = &self.runs[*index];
                Waiting {
                    key,
                    rows: *rows,
                    seconds: self.pace.seconds(key, demand.work),
                    bytes: demand.bytes,
                    service: run.service,
                    arrival: run.arrival,
                    holds: run.holds(),
                }
            })
            .collect();
        let aside: Vec<Aside> = self.aside.iter().map(|call| self.seen_aside(call)).collect();
        let of_runs = |run: usize| open[run].0;
        match choose(&waiting, &aside, self.limits) {
            Next::Begin { picks, for_run } => Next::Begin {
                picks: picks.into_iter().map(|pick| Pick { waiting: of_runs(pick.waiting), ..pick }).collect(),
                for_run: for_run.map(of_runs),
            },
            Next::Continue { call, for_run } => Next::Continue { call, for_run: for_run.map(of_runs) },
            Next::Nothing => Next::Nothing,
        }
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
        let first = &self.runs[picks[0].waiting];
        let mut rows = Vec::new();
        let mut shares = Vec::new();
        let mut demand = Demand::default();
        let mut key = None;
        for pick in picks {
            let run = &self.runs[pick.waiting];
            run.take_up(pick.rows, |ask, taken| {
                rows.extend_from_slice(taken);
                let all = taken.len();
                demand =
                    demand.and(Demand { work: all as f64 * ask.demand.work, bytes: all as u64 * ask.demand.bytes });
                key.get_or_insert_with(|| ask.key.clone());
            });
            shares.push(Share::new(run.arrival, pick.rows, run.cancel.clone()));
        }
        let key = key.expect("the policy picks runs whose asks are open");
        let model = first.model(&key);
        let long = self.pace.seconds(&key, demand.work) > self.limits.slice_s;
        Call::new(model, key, rows, shares, demand, long)
    }

    /// Lets a call compute, and hands over its answers if it has ended. `payer` is charged for it in place of the call's runs.
    fn advance(&mut self, mut call: Call, payer: Option<u64>) {
        let slice = Duration::from_secs_f64(self.limits.slice_s);
        let Some(answers) = call.advance(self.pool.as_ref(), slice) else {
            let spent = call.spent.as_secs_f64() / self.pace.seconds(&call.key, 1.0);
            self.charge(&mut call, spent, payer);
            self.aside.push(call);
            return;
        };
        let work = call.work;
        self.charge(&mut call, work, payer);
        match answers {
            Ok(answers) => self.hand_over(&call, answers),
            Err(error) => {
                tracing::warn!(%error, runs = call.shares.len(), "a batch failed");
                self.try_alone(call, error);
            }
        }
    }

    /// Charges the runs for what the call has done so far, at most all that it does; or the run that has given it its turn.
    fn charge(&mut self, call: &mut Call, done: f64, payer: Option<u64>) {
        let done = done.min(call.work).max(call.charged);
        let all = done - call.charged;
        call.charged = done;
        if let Some(payer) = payer.and_then(|payer| self.runs.iter_mut().find(|run| run.arrival == payer)) {
            payer.service += all;
            return;
        }
        let per_row = all / call.rows().max(1) as f64;
        for share in &call.shares {
            if let Some(run) = self.runs.iter_mut().find(|run| run.arrival == share.run) {
                run.service += share.rows as f64 * per_row;
            }
        }
    }

    fn hand_over(&mut self, call: &Call, answers: Vec<Answer>) {
        let (network, seconds, rows) = (&call.key.network, call.spent.as_secs_f64(), call.rows());
        self.pace.learn(&call.key, call.work, seconds);
        self.metrics.batch_seconds.with_label_values(&[network.as_str()]).observe(seconds);
        if let Network::Denoiser { .. } = network {
            self.metrics.batch_rows.observe(rows as f64);
            self.metrics.batch_runs.observe(call.shares.len() as f64);
            self.metrics.steps.inc_by(rows as u64);
        }
        if let Network::Denoiser { depth: Depth::Shallow, .. } = network {
            self.metrics.shallow_steps.inc_by(rows as u64);
        }
        let mut answers = answers.into_iter();
        for share in &call.shares {
            let own: Vec<Answer> = answers.by_ref().take(share.rows).collect();
            let Some(index) = self.runs.iter().position(|run| run.arrival == share.run) else { continue };
            self.remember(index, &own);
            let run = &mut self.runs[index];
            if let Network::Denoiser { .. } = network {
                run.steps += share.rows as u64;
            }
            if own.iter().all(Answer::is_finite) {
                run.answer(own);
            } else {
                let detail = "its answer holds values that are not finite".to_owned();
                run.fail(NetworkError { network: network.as_str(), detail });
            }
        }
    }

    /// One bad row must not fail its neighbors: each run's rows are tried once more alone.
    fn try_alone(&mut self, call: Call, error: NetworkError) {
        let was_alone = call.shares.len() == 1;
        for share in call.shares {
            let Some(index) = self.runs.iter().position(|run| run.arrival == share.run) else { continue };
            if was_alone {
                self.runs[index].fail(error.clone());
            } else {
                self.runs[index].let_go();
                let again = self.begin(&[Pick { waiting: index, rows: share.rows }]);
                self.aside.push(again);
            }
        }
    }

    /// Keeps the embeddings that are answers to the run's prompts.
    fn remember(&mut self, index: usize, answers: &[Answer]) {
        let prompts =
            self.runs[index].with_taken_up(|key, rows| rows.iter().map(|row| prompt_of(key, row)).collect::<Vec<_>>());
        for (prompt, answer) in prompts.unwrap_or_default().into_iter().zip(answers) {
            if let (Some(prompt), Answer::Text(embedding)) = (prompt, answer) {
                self.metrics.text_cache.with_label_values(&["miss"]).inc();
                self.cache.put(prompt, embedding.clone());
            }
        }
    }
}

fn prompt_of(key: &Key, row: &Row) -> Option<Prompt> {
    match (&key.network, row) {
        // What adapters and learned tokens make of a prompt is their run's own.
        (Network::TextEncoder { clip_skip }, Row::Text(prompt)) if prompt.is_plain() => {
            Some(Prompt { model: key.model.clone(), clip_skip: *clip_skip, ids: prompt.ids.clone() })
        }
        _ => None,
    }
}
