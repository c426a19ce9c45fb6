//! The call for decoding latents with the model's tiny decoder.

use async_trait::async_trait;

use super::decode::most_rows;
use crate::{
    models::{demand::Demand, latent_diffusion::Part},
    pipelines::{
        Frame, LatentDiffusion, Model, NetworkError,
        call::{Call, Shape},
    },
};

/// Decodes latents (C, h, w) to pictures. Fails if the model has no tiny decoder.
#[derive(Clone, Copy, Debug)]
pub struct DecodeTiny {
    /// The shape (C, h, w) of the latents.
    pub shape: [usize; 3],
}

#[async_trait]
impl Call for DecodeTiny {
    type Row = Vec<f32>;
    type Answer = Frame;

    fn network(&self) -> &'static str {
        "tiny_decoder"
    }

    fn shape(&self) -> Shape {
        let [c, h, w] = self.shape;
        [c, h, w, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Vec<f32>]) -> Demand {
        let [_, h, w] = self.shape;
        LatentDiffusion::demand(model, Part::DecodeTiny { size: [h, w] })
    }

    async fn run(&self, model: &Model, rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        LatentDiffusion::of(model)?.decode_tiny(self.shape, rows).await
    }

    fn most_rows(&self) -> usize {
        most_rows(self.shape)
    }
}
