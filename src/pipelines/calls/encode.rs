//! Pictures to latents.

use async_trait::async_trait;

use crate::{
    models::{demand::Demand, latent_diffusion::Part},
    pipelines::{
        LatentDiffusion, Model, NetworkError, Posterior,
        call::{Call, Shape},
    },
};

/// Pictures as pixels (3, H, W) in [-1, 1] → the distribution of the latents of each.
#[derive(Clone, Copy, Debug)]
pub struct Encode {
    /// (H, W) of the pictures.
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

    /// Beside its neighbors a picture of usual size would not be encoded any sooner.
    fn most_rows(&self) -> usize {
        1
    }

    fn is_finite(posterior: &Posterior) -> bool {
        posterior.mean.iter().chain(&posterior.std).all(|value| value.is_finite())
    }
}
