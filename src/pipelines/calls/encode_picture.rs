//! The call for encoding pictures to vectors.

use async_trait::async_trait;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, StableVideo,
        call::{Call, Shape},
    },
};

/// Encodes pixels (3, side, side) in [0, 1] to the vector of the picture.
#[derive(Clone, Copy, Debug)]
pub struct EncodePicture {
    /// The width and height of the picture, in pixels.
    pub side: usize,
}

#[async_trait]
impl Call for EncodePicture {
    type Row = Vec<f32>;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "image_encoder"
    }

    fn shape(&self) -> Shape {
        [self.side, self.side, 0, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Vec<f32>]) -> Demand {
        model.networks::<StableVideo>().map_or(Demand::default(), |networks| networks.sizes.picture_demand())
    }

    async fn run(&self, model: &Model, rows: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, NetworkError> {
        model.networks::<StableVideo>()?.encode_pictures(rows).await
    }

    fn is_finite(&self, vector: &Vec<f32>) -> bool {
        vector.iter().all(|value| value.is_finite())
    }
}
