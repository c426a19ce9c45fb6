//! The call for decoding latents with a codebook.

use async_trait::async_trait;

use super::decode::most_rows;
use crate::{
    models::demand::Demand,
    pipelines::{
        Frame, Model, NetworkError, PlainUNet,
        call::{Call, Shape},
    },
};

/// Decodes latents (C, h, w): replaces each latent pixel by its nearest code and decodes the codes to pictures.
#[derive(Clone, Copy, Debug)]
pub struct DecodeCodes {
    /// The shape (C, h, w) of the latents.
    pub shape: [usize; 3],
}

#[async_trait]
impl Call for DecodeCodes {
    type Row = Vec<f32>;
    type Answer = Frame;

    fn network(&self) -> &'static str {
        "decoder"
    }

    fn shape(&self) -> Shape {
        let [c, h, w] = self.shape;
        [c, h, w, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Vec<f32>]) -> Demand {
        let [_, h, w] = self.shape;
        model.networks::<PlainUNet>().map_or(Demand::default(), |networks| networks.decode_demand([h, w]))
    }

    async fn run(&self, model: &Model, rows: &[Vec<f32>]) -> Result<Vec<Frame>, NetworkError> {
        model.networks::<PlainUNet>()?.decode(self.shape, rows).await
    }

    fn most_rows(&self) -> usize {
        most_rows(self.shape)
    }
}
