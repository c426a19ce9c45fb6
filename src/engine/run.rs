//! A generation while the engine works on it.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    Cancel, Log, Observer, Run, RunError,
    ask::Ask,
    batch::{Batch, Items},
    key::Key,
    mailbox::{Mailbox, Station},
    recording::Recording,
    text_cache::Cache,
};
use crate::{
    crash::{Attempt, blame},
    families::draw,
    generation::{Phase, Work},
    pipelines::{Frame, Model, NetworkError, PipelineError},
};

type Pipeline = Pin<Box<dyn Future<Output = Result<Vec<Frame>, PipelineError>>>>;

/// A run on the engine's thread.
pub(super) struct Active {
    pipeline: Pipeline,
    mailbox: Rc<RefCell<Mailbox>>,
    observer: Box<dyn Observer>,
    told: Option<(Phase, u32)>,
    pub cancel: Cancel,
    model: Arc<Model>,
    refiner: Option<Arc<Model>>,
    pub arrival: u64,
    pub service: f64,
    /// Rows × denoiser calls computed for it.
    pub steps: u64,
    /// Those of them that its observer has in the log.
    kept: u64,
    attempt: Option<Attempt>,
}

impl Active {
    /// `recording` is of the run's `replay`.
    pub fn new(run: Run, recording: Recording, arrival: u64, service: f64) -> Active {
        let Run { prepared, replay: _, observer, cancel, attempt } = run;
        let Work::Draw(work) = &prepared.job.work;
        let mailbox = Rc::new(RefCell::new(Mailbox::new(work.steps, recording)));
        let station = Station {
            mailbox: mailbox.clone(),
            model: prepared.model.clone(),
            refiner: prepared.companions.refiner.as_ref().map(|(model, _)| model.clone()),
            previews: prepared.job.previews,
        };
        let (model, refiner) = (station.model.clone(), station.refiner.clone());
        let pipeline = Box::pin(async move { draw(&station, &prepared).await });
        let (told, steps, kept) = (None, 0, 0);
        Active { pipeline, mailbox, observer, told, cancel, model, refiner, arrival, service, steps, kept, attempt }
    }

    /// Lets the pipeline go on until it asks again (`None`) or ends, and tells the observer.
    pub fn poll(&mut self) -> Option<Result<Vec<Frame>, RunError>> {
        let mut context = Context::from_waker(Waker::noop());
        // A pipeline that panicked is dropped and never polled again, so nothing sees what it left half done.
        let (attempt, pipeline) = (self.attempt, self.pipeline.as_mut());
        let polled = catch_unwind(AssertUnwindSafe(|| blame(attempt, || pipeline.poll(&mut context))));
        self.tell();
        self.checkpoint(Recording::due);
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(outcome)) => Some(outcome.map_err(RunError::Pipeline)),
            Err(_) => Some(Err(RunError::Panicked)),
        }
    }

    fn tell(&mut self) {
        let (phase, (step, steps), previews) = {
            let mut mailbox = self.mailbox.borrow_mut();
            (mailbox.phase, mailbox.step, std::mem::take(&mut mailbox.previews))
        };
        if let Some(phase) = phase.filter(|phase| self.told != Some((*phase, step))) {
            self.told = Some((phase, step));
            self.observer.progress(phase, step, steps);
        }
        for (index, step, frame) in previews {
            self.observer.preview(index, step, frame);
        }
    }

    /// Hands the observer a portion of the log.
    fn checkpoint(&mut self, portion: impl FnOnce(&mut Recording) -> Option<Log>) {
        let recording = &mut self.mailbox.borrow_mut().recording;
        let Some(portion) = portion(recording) else { return };
        let rows = portion.rows();
        match self.observer.checkpoint(portion) {
            None => self.kept += rows,
            Some(portion) => recording.give_back(portion),
        }
    }

    /// For a run that will be begun again: its observer gets the rest of the log. Returns the steps that are not in it.
    pub fn give_up(&mut self) -> u64 {
        self.checkpoint(Recording::rest);
        self.steps.saturating_sub(self.kept)
    }

    /// Calls `look` with the open ask, if it has rows without an answer of which no call has taken up any.
    pub fn with_open<T>(&self, look: impl FnOnce(&dyn Ask) -> T) -> Option<T> {
        let mailbox = self.mailbox.borrow();
        mailbox.ask.as_deref().filter(|ask| ask.open_rows() > 0 && ask.in_call() == 0).map(look)
    }

    /// Calls `change` with the ask.
    fn with_ask<T>(&self, change: impl FnOnce(&mut dyn Ask) -> T) -> Option<T> {
        self.mailbox.borrow_mut().ask.as_deref_mut().map(change)
    }

    /// Moves the first open rows into the batch of a call, which is made where there is none yet.
    pub fn take_up(&self, rows: usize, batch: Option<Box<dyn Batch>>) -> Option<Box<dyn Batch>> {
        self.with_ask(|ask| {
            let mut batch = batch.unwrap_or_else(|| ask.batch());
            ask.take_up(rows, batch.as_mut());
            batch
        })
    }

    /// Takes back the rows of a call that has ended without answers.
    pub fn let_go(&self, rows: &mut dyn Items) {
        self.with_ask(|ask| ask.let_go(rows));
    }

    /// The model whose networks the key's are.
    pub fn model(&self, key: &Key) -> Arc<Model> {
        let refiner = self.refiner.as_ref().filter(|refiner| refiner.key == key.model);
        refiner.unwrap_or(&self.model).clone()
    }

    /// Latent pixels of its pictures on their way through the decoder: all of its rows from the moment that the first one
    /// enters the first stage, for then the others will follow.
    pub fn holds(&self) -> usize {
        let held = self.with_ask(|ask| {
            let has_begun = |is_first: bool| !is_first || ask.open_rows() < ask.rows();
            let stage = ask.stage().filter(|stage| has_begun(stage.is_first));
            stage.map_or(0, |stage| ask.rows() * stage.latent_pixels)
        });
        held.unwrap_or(0)
    }

    /// Takes the answers to the rows that a call has taken up.
    pub fn answer(&self, answers: &mut dyn Items, cache: &mut Cache) {
        let answered = self.with_ask(|ask| ask.answer(answers, cache));
        match answered {
            Some(Err(error)) => self.fail(error),
            Some(Ok(())) | None => self.record(),
        }
    }

    /// Answers all open rows from the cache; how many, or `None` where one is not there.
    pub fn answer_from(&self, cache: &mut Cache) -> Option<usize> {
        self.with_open(|_| ())?;
        self.with_ask(|ask| ask.answer_from(cache))?
    }

    /// Adds the answers to the log once all are there.
    fn record(&self) {
        let Mailbox { ask: Some(ask), recording, .. } = &mut *self.mailbox.borrow_mut() else { return };
        if ask.is_answered() {
            ask.record(recording);
        }
    }

    pub fn fail(&self, error: NetworkError) {
        self.mailbox.borrow_mut().failure = Some(error);
    }

    /// Whether polling would get the pipeline further.
    pub fn is_ready(&self) -> bool {
        let mailbox = self.mailbox.borrow();
        mailbox.failure.is_some() || mailbox.ask.as_ref().is_none_or(|ask| ask.is_answered())
    }

    /// Lets go of all that the run holds, and then tells the observer.
    pub fn end(self, outcome: Result<Vec<Frame>, RunError>) {
        let Active { pipeline, mailbox, model, refiner, observer, .. } = self;
        drop((pipeline, mailbox, model, refiner));
        observer.ended(outcome);
    }
}
