//! The call for a prediction for clips that begin with a picture.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    models::{demand::Demand, unet_spatio_temporal::TIME_IDS},
    pipelines::{
        Model, NetworkError, StableVideo,
        call::{Call, LogFormat, RowMetric, Shape},
    },
};

/// Computes the network's raw prediction for each row, one clip. Each row has its own timestep and conditions.
#[derive(Clone, Copy, Debug)]
pub struct DenoiseClip {
    /// The shape (F, C, h, w) of a clip.
    pub shape: [usize; 4],
}

/// The input of one clip.
#[derive(Clone, Debug)]
pub struct ClipRow {
    /// The latents (F, C, h, w), scaled as the network expects.
    pub latents: Vec<f32>,
    /// The timestep that the network receives.
    pub t: f32,
    /// The latents of the picture, (C, h, w), which are added to each frame as further channels.
    pub picture: Arc<[f32]>,
    /// The vector of the picture.
    pub vector: Arc<[f32]>,
    /// Frames per second minus 1, `motion_bucket_id` and `noise_aug_strength`.
    pub time_ids: [f32; TIME_IDS],
}

#[async_trait]
impl Call for DenoiseClip {
    type Row = ClipRow;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "denoiser"
    }

    fn shape(&self) -> Shape {
        let [f, c, h, w] = self.shape;
        [f, c, h, w, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[ClipRow]) -> Demand {
        let [f, _, h, w] = self.shape;
        model.networks::<StableVideo>().map_or(Demand::default(), |networks| networks.sizes.denoise_demand(f, [h, w]))
    }

    async fn run(&self, model: &Model, rows: &[ClipRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        model.networks::<StableVideo>()?.denoise(self.shape, rows).await
    }

    fn row_metric(&self) -> RowMetric {
        RowMetric::Step
    }

    fn is_finite(&self, prediction: &Vec<f32>) -> bool {
        prediction.iter().all(|value| value.is_finite())
    }

    fn log(&self) -> Option<LogFormat<Vec<f32>>> {
        Some(LogFormat::of_numbers(self.shape.iter().product()))
    }
}
