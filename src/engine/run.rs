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
    ask::{Answer, Ask, Key, Mailbox, Network, Row, Station},
    recording::Recording,
};
use crate::{
    crash::{Attempt, blame},
    generation::Phase,
    imaging::RgbImage,
    pipelines::{Model, NetworkError, PipelineError, generate},
};

type Pipeline = Pin<Box<dyn Future<Output = Result<Vec<RgbImage>, PipelineError>>>>;

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
        let Run { generation, inputs, companions, scheduler, model, replay: _, observer, cancel, attempt } = run;
        let mailbox = Rc::new(RefCell::new(Mailbox::new(generation.steps, recording)));
        let station = Station {
            mailbox: mailbox.clone(),
            model: model.clone(),
            name: model.key.clone(),
            refiner: companions.refiner.as_ref().map(|(model, _)| model.clone()),
            previews: generation.previews,
        };
        let refiner = station.refiner.clone();
        let networks = model.clone();
        let pipeline = Box::pin(async move {
            generate(&station, networks.networks.as_ref(), &scheduler, &generation, &inputs, &companions).await
        });
        let (told, steps, kept) = (None, 0, 0);
        Active { pipeline, mailbox, observer, told, cancel, model, refiner, arrival, service, steps, kept, attempt }
    }

    /// Lets the pipeline go on until it asks again (`None`) or ends, and tells the observer.
    pub fn poll(&mut self) -> Option<Result<Vec<RgbImage>, RunError>> {
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
        for (index, step, picture) in previews {
            self.observer.preview(index, step, picture);
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
    pub fn with_open<T>(&self, look: impl FnOnce(&Ask) -> T) -> Option<T> {
        let mailbox = self.mailbox.borrow();
        mailbox.ask.as_ref().filter(|ask| ask.open_rows() > 0 && ask.in_call == 0).map(look)
    }

    /// Takes up the first open rows for a call, and hands them to `take`.
    pub fn take_up(&self, rows: usize, take: impl FnOnce(&Ask, &[Row])) {
        let Some(ask) = &mut self.mailbox.borrow_mut().ask else { return };
        ask.in_call = rows;
        take(ask, ask.taken_up());
    }

    /// Calls `look` with the rows that a call has taken up.
    pub fn with_taken_up<T>(&self, look: impl FnOnce(&Key, &[Row]) -> T) -> Option<T> {
        self.mailbox.borrow().ask.as_ref().map(|ask| look(&ask.key, ask.taken_up()))
    }

    /// The call that took up rows has ended without answers.
    pub fn let_go(&self) {
        if let Some(ask) = &mut self.mailbox.borrow_mut().ask {
            ask.in_call = 0;
        }
    }

    /// The model whose networks the key's are.
    pub fn model(&self, key: &Key) -> Arc<Model> {
        let refiner = self.refiner.as_ref().filter(|refiner| refiner.key == key.model);
        refiner.unwrap_or(&self.model).clone()
    }

    /// Latent pixels of its pictures on their way through the decoder.
    pub fn holds(&self) -> usize {
        self.mailbox.borrow().ask.as_ref().map_or(0, Ask::holds)
    }

    /// Answers the first open rows.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        let Mailbox { ask: Some(ask), recording, .. } = &mut *self.mailbox.borrow_mut() else { return };
        ask.answers.extend(answers);
        ask.in_call = 0;
        if let (0, Network::Denoiser { .. }) = (ask.open_rows(), &ask.key.network) {
            recording.record(&ask.answers);
        }
    }

    pub fn fail(&self, error: NetworkError) {
        self.mailbox.borrow_mut().failure = Some(error);
    }

    /// Whether polling would get the pipeline further.
    pub fn is_ready(&self) -> bool {
        let mailbox = self.mailbox.borrow();
        mailbox.failure.is_some() || mailbox.ask.as_ref().is_none_or(|ask| ask.open_rows() == 0)
    }

    /// Lets go of all that the run holds, and then tells the observer.
    pub fn end(self, outcome: Result<Vec<RgbImage>, RunError>) {
        let Active { pipeline, mailbox, model, refiner, observer, .. } = self;
        drop((pipeline, mailbox, model, refiner));
        observer.ended(outcome);
    }
}
