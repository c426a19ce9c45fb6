//! The pictures that ControlNets see in the course of a run.

use std::{cell::Cell, sync::Arc};

use super::{
    Control, Inputs, NetworkError, PipelineError,
    pixels::{at, unit},
    setup::Setup,
};
use crate::{
    generation::{self, Place, Preprocess},
    imaging::canny,
    models::control_net::Hint,
    pipelines::Compute,
};

/// Which networks act in the next call.
#[derive(Default)]
pub(super) struct Steering {
    controls: Vec<(generation::Control, Control)>,
    /// Calls that were made, and of the whole run.
    call: Cell<usize>,
    calls: usize,
}

impl Steering {
    /// For a run of so many calls.
    ///
    /// # Errors
    /// A picture or a network that the generation names is not at hand.
    pub fn new(setup: &Setup<'_, impl Compute>, inputs: &Inputs, calls: usize) -> Result<Steering, PipelineError> {
        let wanted = setup.draw.controls.iter().enumerate();
        let control = |(i, wanted): (usize, &generation::Control)| {
            let picture = inputs.of(Place::Control(i))?;
            let net = setup.companions.control_nets.get(i).ok_or(PipelineError::MissingInput("controls"))?;
            let pixels = match wanted.preprocess {
                Preprocess::None => unit(picture, setup.size()), // (3, H, W)
                Preprocess::Canny => {
                    let edges = canny(&at(picture, setup.size()), 100, 200);
                    unit(&edges.to_rgb(), setup.size())
                }
            };
            let hint = Hint::new(pixels, setup.size())
                .map_err(|error| NetworkError { network: "control_net", detail: error.to_string() })?;
            let (net, hint) = (net.clone(), Arc::new(hint));
            Ok((wanted.clone(), Control { net, hint, scale: wanted.scale as f32, guess: wanted.guess_mode }))
        };
        let controls = wanted.map(control).collect::<Result<_, PipelineError>>()?;
        Ok(Steering { controls, call: Cell::new(0), calls })
    }

    /// What acts in this call, which is counted.
    pub fn next(&self) -> Vec<Control> {
        let call = self.call.replace(self.call.get() + 1);
        let acting = self.controls.iter().filter(|(wanted, _)| wanted.acts(call, self.calls));
        acting.map(|(_, control)| control.clone()).collect()
    }
}
