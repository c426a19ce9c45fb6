//! The call for encoding a picture to the states of its tokens.

use async_trait::async_trait;
use candle_core::Tensor;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, WanVideo,
        call::{Call, Shape},
    },
};

/// Encodes the prepared pixels (side, side, 3) of a picture to the states (M, P) of its tokens.
#[derive(Clone, Copy, Debug)]
pub struct EncodeTokens;

#[async_trait]
impl Call for EncodeTokens {
    type Row = Vec<f32>;
    type Answer = Tensor;

    fn network(&self) -> &'static str {
        "image_encoder"
    }

    fn shape(&self) -> Shape {
        [0; 6]
    }

    fn demand(&self, model: &Model, _rows: &[Vec<f32>]) -> Demand {
        model.networks::<WanVideo>().map_or(Demand::default(), |networks| networks.sizes.picture_demand())
    }

    async fn run(&self, model: &Model, rows: &[Vec<f32>]) -> Result<Vec<Tensor>, NetworkError> {
        model.networks::<WanVideo>()?.encode_pictures(rows).await
    }
}
