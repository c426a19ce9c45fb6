//! The networks of a latent diffusion model, as the catalogue loads them.

use super::{Frame, LatentRgb, Loaded, Model, NetworkError, Networks};
use crate::{
    models::{adapters::Adapter, demand::Demand, latent_diffusion::Part, text_encoders::LearnedToken},
    weights::LoadError,
};

/// A loaded latent diffusion model. The recipes and the calls in [`calls`](super::calls) use it.
pub struct LatentDiffusion {
    pub networks: Box<dyn Networks>,
    /// The linear map from latents to colors, for previews; `None` if the model has no previews.
    pub latent_rgb: Option<LatentRgb>,
}

impl LatentDiffusion {
    /// The networks of a model.
    ///
    /// # Errors
    /// The model has networks of another type.
    pub fn of(model: &Model) -> Result<&dyn Networks, NetworkError> {
        model.networks::<LatentDiffusion>().map(|model| model.networks.as_ref())
    }

    /// The work and memory of one row of a call to `part`; zero if the model has networks of another type, because the
    /// call then fails anyway.
    pub(super) fn demand(model: &Model, part: Part) -> Demand {
        LatentDiffusion::of(model).map_or(Demand::default(), |networks| networks.demand(part))
    }
}

impl Loaded for LatentDiffusion {
    fn rgb_preview(&self, estimate: &[f32], shape: [usize; 3]) -> Option<Frame> {
        self.latent_rgb.as_ref().map(|map| map.frame(estimate, shape))
    }

    fn has_preview_network(&self) -> bool {
        self.networks.spec().tiny_decoder
    }

    fn adapter(&self, path: &str, file: &[u8]) -> Result<Adapter, LoadError> {
        self.networks.adapter(path, file)
    }

    fn learned(&self, name: &str, file: &[u8]) -> Result<LearnedToken, LoadError> {
        self.networks.learned(name, file)
    }
}

impl std::fmt::Debug for LatentDiffusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatentDiffusion").finish_non_exhaustive()
    }
}
