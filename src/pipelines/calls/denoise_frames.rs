//! The call for a prediction for films by a model of pictures with a motion adapter.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    models::{
        MotionAdapter,
        adapters::AdapterSet,
        demand::{Demand, of_frames},
        latent_diffusion::Part,
    },
    pipelines::{
        LatentDiffusion, Model, NetworkError, TextEmbedding,
        call::{Call, LogFormat, RowMetric, Shape},
    },
};

/// Computes the network's raw prediction (C, F, h, w) for each row, one film. Each row has its own time, text and
/// motion adapter.
#[derive(Clone, Copy, Debug)]
pub struct DenoiseFrames {
    /// The shape (C, F, h, w) of a film.
    pub shape: [usize; 4],
    /// The shape (L, D) of the text embedding.
    pub context: [usize; 2],
}

/// The input of one film.
#[derive(Clone, Debug)]
pub struct FramesRow {
    /// The latents (C, F, h, w), scaled as the network expects.
    pub latents: Vec<f32>,
    /// The timestep that the network receives.
    pub t: f32,
    /// The text embedding of the branch.
    pub context: TextEmbedding,
    /// LoRA weights that apply to this row.
    pub adapters: AdapterSet,
    pub motion: Arc<MotionAdapter>,
}

#[async_trait]
impl Call for DenoiseFrames {
    type Row = FramesRow;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "denoiser"
    }

    fn shape(&self) -> Shape {
        let ([c, f, h, w], [length, width]) = (self.shape, self.context);
        [c, f, h, w, length, width]
    }

    fn demand(&self, model: &Model, rows: &[FramesRow]) -> Demand {
        let ([_, f, h, w], [tokens, _]) = (self.shape, self.context);
        let adapted = rows.iter().any(|row| !row.adapters.is_empty());
        let frame = Part::Denoise { size: [h, w], tokens, shallow: false, adapted };
        let motions = rows.iter().map(|row| row.motion.demand(f, [h, w]));
        let motion = motions.max_by(|a, b| a.work.total_cmp(&b.work)).unwrap_or_default();
        of_frames(f, LatentDiffusion::demand(model, frame)).and(motion)
    }

    async fn run(&self, model: &Model, rows: &[FramesRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        LatentDiffusion::of(model)?.denoise_frames(self.shape, rows).await
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
