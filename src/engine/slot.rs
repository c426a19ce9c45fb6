//! The slot through which a run's future and the engine exchange pending calls and answers.

use std::{cell::RefCell, rc::Rc, sync::Arc, task::Poll};

use super::{
    pending_call::{PendingCall, TypedCall},
    recording::Recording,
};
use crate::{
    diffusion::Latents,
    generation::{Phase, Precision},
    pipelines::{Compute, Frame, Model, PipelineError, call::Call},
};

/// State shared by a run's future and the engine, both on the engine's thread.
pub(super) struct Slot {
    /// The network call that the run awaits.
    pub pending_call: Option<Box<dyn PendingCall>>,
    /// The error of the awaited call, if the call has failed and is not retried.
    pub failure: Option<PipelineError>,
    /// The phase to report to the observer.
    pub phase: Option<Phase>,
    /// The steps done, and the total.
    pub step: (u32, u32),
    /// Previews to report to the observer: index, step, frame.
    pub previews: Vec<(u32, u32, Frame)>,
    pub recording: Recording,
}

impl Slot {
    /// The slot of a run of `steps` steps that has not requested a call yet.
    pub fn new(steps: u32, recording: Recording) -> Slot {
        Slot { pending_call: None, failure: None, phase: None, step: (0, steps), previews: Vec::new(), recording }
    }
}

/// The [`Compute`] of one run. Each awaited call leaves a pending call in the slot, unless the log has the answer.
pub(super) struct RunCompute {
    pub slot: Rc<RefCell<Slot>>,
    pub model: Arc<Model>,
    /// The generation's refiner.
    pub refiner: Option<Arc<Model>>,
    pub precision: Precision,
    /// How many previews of each picture the generation requests.
    pub previews: u32,
}

impl Compute for RunCompute {
    fn refiner(&self) -> Option<RunCompute> {
        let model = self.refiner.clone()?;
        Some(RunCompute {
            slot: self.slot.clone(),
            model,
            refiner: None,
            precision: self.precision,
            previews: self.previews,
        })
    }

    async fn call<C: Call>(&self, phase: Phase, call: C, rows: Vec<C::Row>) -> Result<Vec<C::Answer>, PipelineError> {
        {
            let mut slot = self.slot.borrow_mut();
            if let Some(format) = call.log()
                && let Some(known) = slot.recording.next(rows.len(), format.values)
            {
                return Ok(known.into_iter().map(format.read).collect());
            }
            slot.phase = Some(phase);
            slot.pending_call = Some(Box::new(TypedCall::new(call, &self.model, self.precision, rows)));
        }
        std::future::poll_fn(|_| {
            let mut slot = self.slot.borrow_mut();
            if let Some(error) = slot.failure.take() {
                slot.pending_call = None;
                return Poll::Ready(Err(error));
            }
            match slot.pending_call.take_if(|pending_call| pending_call.is_answered()) {
                Some(pending_call) => Poll::Ready(Ok(TypedCall::<C>::answers(pending_call))),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// False after the last step, because the picture itself follows soon, and for steps that the log replays.
    fn wants_decoded_preview(&self, step: usize, steps: usize) -> bool {
        let ahead = step < steps && !self.slot.borrow().recording.replays();
        ahead && self.is_preview_due(step, steps) && self.model.networks.has_preview_network()
    }

    fn show(&self, step: usize, frames: Vec<Frame>) {
        let frames = frames.into_iter().enumerate();
        let previews = frames.map(|(index, frame)| (index as u32, step as u32, frame));
        self.slot.borrow_mut().previews.extend(previews);
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        let shows_rgb_preview = self.is_preview_due(step, steps) && !self.wants_decoded_preview(step, steps);
        let mut slot = self.slot.borrow_mut();
        slot.step = (step as u32, steps as u32);
        if shows_rgb_preview {
            let [b, c, h, w] = denoised.shape();
            for image in 0..b {
                let frame = self.model.networks.rgb_preview(denoised.row(image), [c, h, w]);
                slot.previews.extend(frame.map(|frame| (image as u32, step as u32, frame)));
            }
        }
    }
}

impl RunCompute {
    fn is_preview_due(&self, step: usize, steps: usize) -> bool {
        previews_by(step, steps, self.previews) > previews_by(step - 1, steps, self.previews)
    }
}

/// How many previews are due after `step` of `steps`. They are spread evenly; the last one is due after the last step.
fn previews_by(step: usize, steps: usize, previews: u32) -> usize {
    step * previews as usize / steps.max(1)
}
