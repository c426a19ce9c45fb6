//! A run on the engine's thread: its future, its slot, and its service, by which the policy chooses among runs.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    Cancel, Log, Observer, Run, RunError, RunTrace,
    batch::{Batch, Items},
    batch_key::BatchKey,
    pending_call::PendingCall,
    recording::Recording,
    slot::{RunCompute, Slot},
    text_cache::Cache,
};
use crate::{
    crash::{Attempt, blame},
    families::draw,
    generation::Phase,
    metrics::Metrics,
    pipelines::{Frame, Model, PipelineError},
};

type Pipeline = Pin<Box<dyn Future<Output = Result<Vec<Frame>, PipelineError>>>>;

/// A run that the engine has admitted.
pub(super) struct Active {
    pipeline: Pipeline,
    slot: Rc<RefCell<Slot>>,
    observer: Box<dyn Observer>,
    /// The phase and step that the observer received last.
    reported: Option<(Phase, u32)>,
    pub cancel: Cancel,
    model: Arc<Model>,
    refiner: Option<Arc<Model>>,
    /// The run's number in the order of arrival.
    pub arrival: u64,
    /// The key of the model if the run makes films. All active runs with the same key share an account.
    pub films: Option<Arc<str>>,
    /// The service of the run's account in fair queueing: the work that the account was charged for, in
    /// multiplications, plus the least service of the active runs when the account was opened. A slice is charged to
    /// the runs of its batch. If another run gave its turn to the batch, the slice is charged to that run alone.
    pub service: f64,
    /// The part of the account's charges that were for this run, plus a start value.
    pub own: f64,
    /// Rows of denoiser calls that were computed for this run.
    pub steps: u64,
    /// Rows of the log that the observer has accepted.
    kept: u64,
    attempt: Option<Attempt>,
    pub trace: RunTrace,
}

impl Active {
    /// `recording` must contain the log of `run.replay`. This function does not read `run.replay`.
    pub fn new(
        run: Run,
        recording: Recording,
        arrival: u64,
        films: Option<Arc<str>>,
        (service, own): (f64, f64),
    ) -> Active {
        let Run { prepared, replay: _, observer, cancel, attempt, trace } = run;
        let slot = Rc::new(RefCell::new(Slot::new(prepared.job.work.steps(), recording)));
        let compute = RunCompute {
            slot: slot.clone(),
            model: prepared.model.clone(),
            refiner: prepared.auxiliary.refiner.as_ref().map(|(model, _)| model.clone()),
            precision: prepared.job.precision,
            previews: prepared.job.previews,
        };
        let (model, refiner) = (compute.model.clone(), compute.refiner.clone());
        let pipeline = Box::pin(async move { draw(&compute, &prepared).await });
        let (reported, steps, kept) = (None, 0, 0);
        Active {
            pipeline,
            slot,
            observer,
            reported,
            cancel,
            model,
            refiner,
            arrival,
            films,
            service,
            own,
            steps,
            kept,
            attempt,
            trace,
        }
    }

    /// Whether both runs are charged to one account.
    pub fn shares_account(&self, other: &Active) -> bool {
        self.arrival == other.arrival || self.films.is_some() && self.films == other.films
    }

    /// Polls the pipeline until it awaits a call (`None`) or ends, and reports to the observer.
    pub fn poll(&mut self) -> Option<Result<Vec<Frame>, RunError>> {
        let mut context = Context::from_waker(Waker::noop());
        // A pipeline that panicked is dropped and never polled again, so nothing uses its half-finished state.
        let (attempt, pipeline) = (self.attempt, self.pipeline.as_mut());
        let polled = catch_unwind(AssertUnwindSafe(|| blame(attempt, || pipeline.poll(&mut context))));
        self.tell();
        self.checkpoint(Recording::due);
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(outcome)) => Some(outcome.map_err(|error| self.ended_by(error))),
            Err(_) => Some(Err(RunError::Panicked)),
        }
    }

    /// The error of the run. If numbers are not finite, the error names the step in which this was found.
    fn ended_by(&self, error: PipelineError) -> RunError {
        let (step, steps) = self.slot.borrow().step;
        match error {
            PipelineError::NotFinite(what) => RunError::NotFinite { what, step: (step + 1).min(steps), steps },
            error => RunError::Pipeline(error),
        }
    }

    /// Reports progress and previews to the observer.
    fn tell(&mut self) {
        let (phase, (step, steps), previews) = {
            let mut slot = self.slot.borrow_mut();
            (slot.phase, slot.step, std::mem::take(&mut slot.previews))
        };
        if let Some(phase) = phase.filter(|phase| self.reported != Some((*phase, step))) {
            self.reported = Some((phase, step));
            self.trace.enter(phase);
            self.observer.progress(phase, step, steps);
        }
        for (index, step, frame) in previews {
            self.observer.preview(index, step, frame);
        }
    }

    /// Hands a portion of the log to the observer.
    fn checkpoint(&mut self, portion: impl FnOnce(&mut Recording) -> Option<Log>) {
        let recording = &mut self.slot.borrow_mut().recording;
        let Some(portion) = portion(recording) else { return };
        let rows = portion.rows();
        match self.observer.checkpoint(portion) {
            None => self.kept += rows,
            Some(portion) => recording.give_back(portion),
        }
    }

    /// Hands the rest of the log to the observer, because another run will resume the generation. Returns the number of
    /// computed rows that are not in the log, so that the other run must compute them again.
    pub fn give_up(&mut self) -> u64 {
        self.checkpoint(Recording::rest);
        self.steps.saturating_sub(self.kept)
    }

    /// Calls `look` with the pending call, if the pending call has open rows and none of its rows is in a batch.
    pub fn with_open<T>(&self, look: impl FnOnce(&dyn PendingCall) -> T) -> Option<T> {
        let slot = self.slot.borrow();
        slot.pending_call
            .as_deref()
            .filter(|pending_call| pending_call.open_rows() > 0 && pending_call.in_batch() == 0)
            .map(look)
    }

    /// Calls `change` with the pending call, if there is one.
    fn with_pending_call<T>(&self, change: impl FnOnce(&mut dyn PendingCall) -> T) -> Option<T> {
        self.slot.borrow_mut().pending_call.as_deref_mut().map(change)
    }

    /// Moves the first `rows` open rows into `batch`, or into a new batch if there is none.
    pub fn take_up(&self, rows: usize, batch: Option<Box<dyn Batch>>) -> Option<Box<dyn Batch>> {
        self.with_pending_call(|pending_call| {
            let mut batch = batch.unwrap_or_else(|| pending_call.batch());
            pending_call.take_up(rows, batch.as_mut());
            batch
        })
    }

    /// Takes back the rows of a batch that has ended without answers. They are open again.
    pub fn let_go(&self, rows: &mut dyn Items) {
        self.with_pending_call(|pending_call| pending_call.let_go(rows));
    }

    /// The model to which `key` belongs: the refiner or the generation's own model.
    pub fn model(&self, key: &BatchKey) -> Arc<Model> {
        let refiner = self.refiner.as_ref().filter(|refiner| refiner.key == key.model);
        refiner.unwrap_or(&self.model).clone()
    }

    /// Latent pixels of each picture that the pending call decodes; 0 if it decodes none.
    pub fn picture(&self) -> usize {
        let stage = self.with_pending_call(|pending_call| pending_call.stage()).flatten();
        stage.map_or(0, |stage| stage.latent_pixels)
    }

    /// Latent pixels of this run's pictures that are being decoded. As soon as the first row enters the first stage,
    /// all rows count, because the others will follow.
    pub fn holds(&self) -> usize {
        let held = self.with_pending_call(|pending_call| {
            let has_begun = |is_first: bool| !is_first || pending_call.open_rows() < pending_call.rows();
            let stage = pending_call.stage().filter(|stage| has_begun(stage.is_first));
            stage.map_or(0, |stage| pending_call.rows() * stage.latent_pixels)
        });
        held.unwrap_or(0)
    }

    /// Takes the answers to the rows that are in a batch.
    pub fn answer(&self, answers: &mut dyn Items, cache: &mut Cache) {
        let answered = self.with_pending_call(|pending_call| pending_call.answer(answers, cache));
        match answered {
            Some(Err(error)) => self.fail(error),
            Some(Ok(())) | None => self.record(),
        }
    }

    /// Answers all open rows from the cache and returns their number. `None` if the cache lacks an answer; then all
    /// rows stay open.
    pub fn answer_from(&self, cache: &mut Cache) -> Option<usize> {
        self.with_open(|_| ())?;
        self.with_pending_call(|pending_call| pending_call.answer_from(cache))?
    }

    /// Adds the answers to the log once the pending call is answered.
    fn record(&self) {
        let Slot { pending_call: Some(pending_call), recording, .. } = &mut *self.slot.borrow_mut() else { return };
        if pending_call.is_answered() {
            pending_call.record(recording);
        }
    }

    /// Makes the awaited call fail with `error` at the next poll.
    pub fn fail(&self, error: PipelineError) {
        self.slot.borrow_mut().failure = Some(error);
    }

    /// Whether the pipeline can continue when it is polled.
    pub fn is_ready(&self) -> bool {
        let slot = self.slot.borrow();
        slot.failure.is_some() || slot.pending_call.as_ref().is_none_or(|pending_call| pending_call.is_answered())
    }

    /// Ends the run with `error` before it has results, because another run will resume the generation.
    pub fn release(mut self, error: RunError, metrics: &Metrics) {
        metrics.wasted_steps.with_label_values(&["lost"]).inc_by(self.give_up());
        self.end(Err(error));
    }

    /// Drops everything that the run holds, then notifies the observer.
    pub fn end(self, outcome: Result<Vec<Frame>, RunError>) {
        let Active { pipeline, slot, model, refiner, observer, trace, .. } = self;
        drop((pipeline, slot, model, refiner, trace));
        observer.ended(outcome);
    }
}
