//! The engine's loop.

use std::{
    sync::mpsc::{RecvTimeoutError, TryRecvError},
    time::{Duration, Instant},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{
    EngineThread, Limits, Reason, Run, RunError,
    ask::{Answer, Key, Network, Row},
    batch,
    policy::{Pick, Waiting, choose},
    recording::Recording,
    run::Active,
    text_cache::{Prompt, TextCache},
};
use crate::{
    kernels::arena,
    metrics::Metrics,
    pipelines::{Depth, NetworkError},
};

/// An engine without work waits this long before it gives memory back.
const IDLE: Duration = Duration::from_secs(10);

impl EngineThread {
    /// Works until every handle is dropped; runs that have not ended by then are told that the engine stopped.
    pub fn run(self) {
        let threads = ThreadPoolBuilder::new().num_threads(self.settings.threads);
        let pool = match threads.thread_name(|i| format!("compute-{i}")).build() {
            Ok(pool) => Some(pool),
            Err(error) => {
                tracing::error!(%error, "the compute threads cannot be made, the global pool computes instead");
                None
            }
        };
        let mut floor = Floor {
            pool,
            limits: Limits { max_rows: self.settings.max_rows },
            max_runs: self.settings.max_runs.get(),
            checkpoint_interval: self.settings.checkpoint_interval,
            metrics: self.metrics.clone(),
            cache: TextCache::new(self.settings.text_cache_entries),
            runs: Vec::new(),
            arrivals: 0,
        };
        loop {
            if !self.admit(&mut floor) {
                break;
            }
            floor.drop_canceled();
            floor.poll();
            floor.run_batch();
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
    runs: Vec<Active>,
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
        let canceled = |run: &mut Active| run.cancel.reason().is_some();
        for mut run in self.runs.extract_if(.., canceled).collect::<Vec<_>>() {
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
        let known = self.runs[index].with_open(|key, rows| {
            let prompts = rows.iter().map(|row| prompt_of(key, row)).collect::<Option<Vec<_>>>()?;
            prompts.iter().map(|prompt| cache.get(prompt)).collect::<Option<Vec<_>>>()
        });
        let Some(Some(embeddings)) = known else { return false };
        self.metrics.text_cache.with_label_values(&["hit"]).inc_by(embeddings.len() as u64);
        self.runs[index].answer(embeddings.into_iter().map(Answer::Text));
        true
    }

    fn run_batch(&mut self) {
        let open: Vec<(usize, Key, usize)> = (self.runs.iter().enumerate())
            .filter_map(|(index, run)| run.with_open(|key, rows| (index, key.clone(), rows.len())))
            .collect();
        let waiting: Vec<Waiting<'_>> = (open.iter())
            .map(|(index, key, rows)| {
                let run = &self.runs[*index];
                Waiting { key, rows: *rows, service: run.service, arrival: run.arrival, holds: run.holds() }
            })
            .collect();
        let picks: Vec<Pick> = choose(&waiting, self.limits)
            .into_iter()
            .map(|pick| Pick { waiting: open[pick.waiting].0, rows: pick.rows })
            .collect();
        let Some(first) = picks.first() else { return };
        let Some(key) = self.runs[first.waiting].with_open(|key, _| key.clone()) else { return };

        if let Err(error) = self.serve(&key, &picks) {
            // One bad row must not fail its neighbours: each run's rows are tried once more alone.
            tracing::warn!(%error, runs = picks.len(), "a batch failed");
            for pick in &picks {
                let again = if picks.len() == 1 { Err(error.clone()) } else { self.serve(&key, &[*pick]) };
                if let Err(error) = again {
                    self.runs[pick.waiting].fail(error);
                }
            }
        }
    }

    /// One network call for the picked rows (`Pick::waiting` is an index of `runs`), and the answers to their runs.
    fn serve(&mut self, key: &Key, picks: &[Pick]) -> Result<(), NetworkError> {
        let model = self.runs[picks[0].waiting].model(key);
        let mut rows: Vec<Row> = Vec::new();
        for pick in picks {
            self.runs[pick.waiting].with_open(|_, open| rows.extend_from_slice(&open[..pick.rows]));
        }
        let begun = Instant::now();
        let execute = || batch::execute(&model, &key.network, &rows.iter().collect::<Vec<_>>());
        let answers = match &self.pool {
            Some(pool) => pool.install(execute),
            None => execute(),
        }?;
        self.metrics.batch_seconds.with_label_values(&[key.network.as_str()]).observe(begun.elapsed().as_secs_f64());
        if let Network::Denoiser { .. } = key.network {
            self.metrics.batch_rows.observe(rows.len() as f64);
            self.metrics.batch_runs.observe(picks.len() as f64);
            self.metrics.steps.inc_by(rows.len() as u64);
        }
        if let Network::Denoiser { depth: Depth::Shallow, .. } = key.network {
            self.metrics.shallow_steps.inc_by(rows.len() as u64);
        }
        self.remember(key, &rows, &answers);

        let mut answers = answers.into_iter();
        for pick in picks {
            let own: Vec<Answer> = answers.by_ref().take(pick.rows).collect();
            let run = &mut self.runs[pick.waiting];
            run.service += pick.rows as f64 * key.network.cost();
            if let Network::Denoiser { .. } = key.network {
                run.steps += pick.rows as u64;
            }
            if own.iter().all(Answer::is_finite) {
                run.answer(own);
            } else {
                let detail = "its answer holds values that are not finite".to_owned();
                run.fail(NetworkError { network: key.network.as_str(), detail });
            }
        }
        Ok(())
    }

    fn remember(&mut self, key: &Key, rows: &[Row], answers: &[Answer]) {
        for (row, answer) in rows.iter().zip(answers) {
            if let (Some(prompt), Answer::Text(embedding)) = (prompt_of(key, row), answer) {
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
