//! Where a run leaves its ask and finds its answers.

use std::{cell::RefCell, rc::Rc, sync::Arc, task::Poll};

use super::{
    ask::{Ask, Posted},
    recording::Recording,
};
use crate::{
    diffusion::Latents,
    generation::Phase,
    pipelines::{Compute, Frame, Model, NetworkError, PipelineError, call::Call},
};

/// Shared by a run's future and the engine, both on the engine's thread.
pub(super) struct Mailbox {
    pub ask: Option<Box<dyn Ask>>,
    /// The engine gives up on the ask.
    pub failure: Option<NetworkError>,
    /// What to tell the observer: the phase, and the steps done of all.
    pub phase: Option<Phase>,
    pub step: (u32, u32),
    /// Previews that were not yet handed to the observer: index, step, frame.
    pub previews: Vec<(u32, u32, Frame)>,
    pub recording: Recording,
}

impl Mailbox {
    /// Of a run of `steps` steps, with nothing asked yet.
    pub fn new(steps: u32, recording: Recording) -> Mailbox {
        Mailbox { ask: None, failure: None, phase: None, step: (0, steps), previews: Vec::new(), recording }
    }
}

/// The [`Compute`] of one run: every await leaves an ask in the mailbox.
pub(super) struct Station {
    pub mailbox: Rc<RefCell<Mailbox>>,
    pub model: Arc<Model>,
    /// The refiner of the generation.
    pub refiner: Option<Arc<Model>>,
    /// How many previews the generation wants.
    pub previews: u32,
}

impl Compute for Station {
    fn refiner(&self) -> Option<Station> {
        let model = self.refiner.clone()?;
        Some(Station { mailbox: self.mailbox.clone(), model, refiner: None, previews: self.previews })
    }

    async fn call<C: Call>(&self, phase: Phase, call: C, rows: Vec<C::Row>) -> Result<Vec<C::Answer>, PipelineError> {
        {
            let mut mailbox = self.mailbox.borrow_mut();
            if let Some(format) = call.log()
                && let Some(known) = mailbox.recording.next(rows.len(), format.values)
            {
                return Ok(known.into_iter().map(format.read).collect());
            }
            mailbox.phase = Some(phase);
            mailbox.ask = Some(Box::new(Posted::new(call, &self.model, rows)));
        }
        std::future::poll_fn(|_| {
            let mut mailbox = self.mailbox.borrow_mut();
            if let Some(error) = mailbox.failure.take() {
                mailbox.ask = None;
                return Poll::Ready(Err(PipelineError::Network(error)));
            }
            match mailbox.ask.take_if(|ask| ask.is_answered()) {
                Some(ask) => Poll::Ready(Ok(Posted::<C>::answers(ask))),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// After the last step the picture itself is near, and nobody waits for one that is a little like it; nor for those of
    /// steps that are done already.
    fn wants_sketch(&self, step: usize, steps: usize) -> bool {
        let ahead = step < steps && !self.mailbox.borrow().recording.replays();
        ahead && self.is_preview_due(step, steps) && self.model.networks.has_preview_network()
    }

    fn show(&self, step: usize, frames: Vec<Frame>) {
        let frames = frames.into_iter().enumerate();
        let previews = frames.map(|(index, frame)| (index as u32, step as u32, frame));
        self.mailbox.borrow_mut().previews.extend(previews);
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        let sketches_here = self.is_preview_due(step, steps) && !self.wants_sketch(step, steps);
        let mut mailbox = self.mailbox.borrow_mut();
        mailbox.step = (step as u32, steps as u32);
        if sketches_here {
            let [b, c, h, w] = denoised.shape();
            for image in 0..b {
                let frame = self.model.networks.sketch(denoised.row(image), [c, h, w]);
                mailbox.previews.push((image as u32, step as u32, frame));
            }
        }
    }
}

impl Station {
    fn is_preview_due(&self, step: usize, steps: usize) -> bool {
        previews_by(step, steps, self.previews) > previews_by(step - 1, steps, self.previews)
    }
}

/// How many of the previews are due after `step` of `steps`, spread evenly with the last one after the last step.
fn previews_by(step: usize, steps: usize, previews: u32) -> usize {
    step * previews as usize / steps.max(1)
}
