//! The call for encoding the picture that a film begins with to latents.

use async_trait::async_trait;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, StableVideo,
        call::{Call, Shape},
    },
};

/// Encodes pixels (3, H, W), roughly in [-1, 1], to their most likely latents (C, h, w), without a scaling factor.
#[derive(Clone, Copy, Debug)]
pub struct EncodeStill {
    /// The size (H, W) of the pictures, in pixels.
    pub size: [usize; 2],
}

#[async_trait]
impl Call for EncodeStill {
    type Row = Vec<f32>;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "encoder"
    }

    fn shape(&self) -> Shape {
        [self.size[0], self.size[1], 0, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Vec<f32>]) -> Demand {
        model.networks::<StableVideo>().map_or(Demand::default(), |networks| networks.sizes.still_demand(self.size))
    }

    async fn run(&self, model: &Model, rows: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, NetworkError> {
        model.networks::<StableVideo>()?.encode_stills(self.size, rows).await
    }

    /// As for [`Encode`](super::Encode).
    fn most_rows(&self) -> usize {
        1
    }

    fn is_finite(&self, latents: &Vec<f32>) -> bool {
        latents.iter().all(|value| value.is_finite())
    }
}
