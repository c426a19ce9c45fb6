//! The call for encoding pictures to latents.

use async_trait::async_trait;

use crate::{
    models::{demand::Demand, latent_diffusion::Part},
    pipelines::{
        LatentDiffusion, Model, NetworkError, Posterior,
        call::{Call, Shape},
    },
};

/// Encodes pixels (3, H, W) in [-1, 1] to the distribution of their latents.
#[derive(Clone, Copy, Debug)]
pub struct Encode {
    /// The size (H, W) of the pictures, in pixels.
    pub size: [usize; 2],
}

#[async_trait]
impl Call for Encode {
    type Row = Vec<f32>;
    type Answer = Posterior;

    fn network(&self) -> &'static str {
        "encoder"
    }

    fn shape(&self) -> Shape {
        [self.size[0], self.size[1], 0, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Vec<f32>]) -> Demand {
        LatentDiffusion::demand(model, Part::Encode { size: self.size })
    }

    async fn run(&self, model: &Model, rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        LatentDiffusion::of(model)?.encode(self.size, rows).await
    }

    /// Encoding pictures of usual size together is not faster than encoding them one by one.
    fn most_rows(&self) -> usize {
        1
    }

    fn is_finite(&self, posterior: &Posterior) -> bool {
        posterior.mean.iter().chain(&posterior.std).all(|value| value.is_finite())
    }
}
