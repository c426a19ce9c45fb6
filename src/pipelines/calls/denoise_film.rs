//! The call for a prediction for films with a prompt.

use async_trait::async_trait;
use candle_core::Tensor;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, TextEmbedding, WanVideo,
        call::{Call, LogFormat, RowMetric, Shape},
    },
};

/// Computes a denoiser's raw prediction (C, F, h, w) for each row, one film. Each row has its own time and text.
#[derive(Clone, Copy, Debug)]
pub struct DenoiseFilm {
    /// The shape (C_in, F, h, w) of the network's input.
    pub shape: [usize; 4],
    /// C: channels of the prediction.
    pub channels: usize,
    /// The number of tokens of the texts with their padding.
    pub tokens: usize,
    /// The index of the denoiser, for models that have two.
    pub network: usize,
}

/// The input of one film.
#[derive(Clone, Debug)]
pub struct FilmRow {
    /// The network's input (C_in, F, h, w): the latents, and any further channels.
    pub sample: Vec<f32>,
    /// The timestep that the network receives.
    pub t: f32,
    /// The states of the prompt's tokens, without padding.
    pub text: TextEmbedding,
    /// The states (M, P) of the tokens of a picture, for networks that see them.
    pub picture: Option<Tensor>,
    /// Whether the first latent frame is known, so that its time is 0.
    pub is_known: bool,
}

#[async_trait]
impl Call for DenoiseFilm {
    type Row = FilmRow;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "denoiser"
    }

    fn shape(&self) -> Shape {
        let [c, f, h, w] = self.shape;
        [c, f, h, w, self.tokens, self.network]
    }

    fn demand(&self, model: &Model, _rows: &[FilmRow]) -> Demand {
        let [_, f, h, w] = self.shape;
        let of = |networks: &WanVideo| networks.denoise_demand(self.network, [f, h, w], self.tokens);
        model.networks::<WanVideo>().map_or(Demand::default(), of)
    }

    async fn run(&self, model: &Model, rows: &[FilmRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        model.networks::<WanVideo>()?.denoise(self.network, self.shape, self.tokens, rows).await
    }

    fn row_metric(&self) -> RowMetric {
        RowMetric::Step
    }

    fn is_finite(&self, prediction: &Vec<f32>) -> bool {
        prediction.iter().all(|value| value.is_finite())
    }

    fn log(&self) -> Option<LogFormat<Vec<f32>>> {
        let [_, f, h, w] = self.shape;
        Some(LogFormat::of_numbers(self.channels * f * h * w))
    }
}
