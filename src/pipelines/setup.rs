//! The common arguments of the functions of a recipe.

use super::{Auxiliary, Compute, Networks};
use crate::{diffusion::Stages, generation::Draw};

/// A generation, the networks of its model, and the interface to the engine.
pub(super) struct Setup<'a, C> {
    pub compute: &'a C,
    pub networks: &'a dyn Networks,
    /// The schedules of the generation's base model and of its refiner.
    pub stages: Stages,
    pub draw: &'a Draw,
    pub auxiliary: &'a Auxiliary,
}

impl<C: Compute> Setup<'_, C> {
    /// The size (H, W) of the pictures, in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.draw.height, self.draw.width].map(|side| side as usize)
    }

    /// The shape (n, C, h, w) of the latents.
    pub fn shape(&self) -> [usize; 4] {
        let spec = self.networks.spec();
        let [h, w] = self.size().map(|side| side / spec.vae_scale_factor);
        [self.draw.n as usize, spec.latent_channels, h, w]
    }
}
