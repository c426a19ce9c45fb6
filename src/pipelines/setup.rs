//! What every pipeline works with.

use super::{Companions, Compute, Networks};
use crate::{diffusion::Stages, generation::Draw};

/// One generation, the networks of its model, and who computes them.
pub(super) struct Setup<'a, C> {
    pub compute: &'a C,
    pub networks: &'a dyn Networks,
    pub stages: Stages,
    pub draw: &'a Draw,
    pub companions: &'a Companions,
}

impl<C: Compute> Setup<'_, C> {
    /// (H, W) in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.draw.height, self.draw.width].map(|side| side as usize)
    }

    /// (n, C, h, w) of the latents.
    pub fn shape(&self) -> [usize; 4] {
        let spec = self.networks.spec();
        let [h, w] = self.size().map(|side| side / spec.vae_scale_factor);
        [self.draw.n as usize, spec.latent_channels, h, w]
    }
}
