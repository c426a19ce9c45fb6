//! The ControlNets of a run: prepares their pictures and decides which of them act in each call.

use std::{cell::Cell, sync::Arc};

use super::{
    Control, FittedInputs, NetworkError, PipelineError,
    pixels::{at, unit},
    setup::Setup,
};
use crate::{
    generation::{self, Preprocess},
    imaging::canny,
    models::control_net::Hint,
    pipelines::Compute,
};

/// The ControlNets of a run, and the count of denoiser calls.
#[derive(Default)]
pub(super) struct ControlSchedule {
    /// Each ControlNet, with the entry of the request's `controls` that names it.
    controls: Vec<(generation::ControlUse, Control)>,
    /// The number of calls made so far.
    call: Cell<usize>,
    /// The number of calls of the whole run.
    calls: usize,
}

impl ControlSchedule {
    /// Prepares the ControlNets of a run of `calls` denoiser calls.
    ///
    /// # Errors
    /// A picture or network that the generation names is missing, or a picture cannot be turned into a hint.
    pub fn new(
        setup: &Setup<'_, impl Compute>,
        inputs: &FittedInputs,
        calls: usize,
    ) -> Result<ControlSchedule, PipelineError> {
        let wanted = setup.draw.controls.iter().enumerate();
        let control = |(i, wanted): (usize, &generation::ControlUse)| {
            let picture = inputs.control(i)?;
            let net = setup.auxiliary.control_nets.get(i).ok_or(PipelineError::MissingInput("controls"))?;
            let pixels = match wanted.preprocess {
                Preprocess::None => unit(picture, setup.size()), // (3, H, W)
                Preprocess::Canny => {
                    let edges = canny(&at(picture, setup.size()), 100, 200);
                    unit(&edges.to_rgb(), setup.size())
                }
            };
            let hint = Hint::new(pixels, setup.size()).map_err(|error| NetworkError::new("control_net", error))?;
            let (net, hint) = (net.clone(), Arc::new(hint));
            Ok((wanted.clone(), Control { net, hint, scale: wanted.scale as f32, guess: wanted.guess_mode }))
        };
        let controls = wanted.map(control).collect::<Result<_, PipelineError>>()?;
        Ok(ControlSchedule { controls, call: Cell::new(0), calls })
    }

    /// The ControlNets that act in the next call. Advances the count of calls.
    pub fn next(&self) -> Vec<Control> {
        let call = self.call.replace(self.call.get() + 1);
        let acting = self.controls.iter().filter(|(wanted, _)| wanted.acts(call, self.calls));
        acting.map(|(_, control)| control.clone()).collect()
    }
}
