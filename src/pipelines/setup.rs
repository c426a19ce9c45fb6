//! What every pipeline works with.

use super::{Companions, Compute, Networks};
use crate::{
    diffusion::{InvalidSteps, Schedule, SchedulerConfig},
    generation::Generation,
};

/// One generation, the networks of its model, and who computes them.
pub(super) struct Setup<'a, C> {
    pub compute: &'a C,
    pub networks: &'a dyn Networks,
    pub scheduler: &'a SchedulerConfig,
    pub generation: &'a Generation,
    pub companions: &'a Companions,
}

impl<C: Compute> Setup<'_, C> {
    /// (H, W) in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.generation.height, self.generation.width].map(|side| side as usize)
    }

    /// (n, C, h, w) of the latents.
    pub fn shape(&self) -> [usize; 4] {
        let spec = self.networks.spec();
        let [h, w] = self.size().map(|side| side / spec.vae_scale_factor);
        [self.generation.n as usize, spec.latent_channels, h, w]
    }

    /// The noise levels that the request asks for.
    pub fn schedule(&self) -> Result<Schedule, InvalidSteps> {
        Schedule::of(self.scheduler, self.generation)
    }

    /// How many steps the request asks for.
    pub fn steps(&self) -> usize {
        self.generation.steps as usize
    }
}
