//! The call for turning spectrograms into waveforms.

use async_trait::async_trait;

use crate::{
    models::demand::Demand,
    pipelines::{
        Activation, LatentDiffusion, Model, NetworkError,
        call::{Call, Shape},
    },
};

/// Turns each spectrogram (1, T, M, 1) into the samples of a waveform.
#[derive(Clone, Copy, Debug)]
pub struct Vocode {
    /// The size (T, M) of the spectrograms: frames and frequencies.
    pub size: [usize; 2],
}

/// The maximum number of frames of all spectrograms in a batch; a single spectrogram may have more. Inside the network,
/// each frame becomes some hundred samples with several channels, and larger batches would not be faster.
const FRAMES: usize = 2048;

#[async_trait]
impl Call for Vocode {
    type Row = Activation;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "vocoder"
    }

    fn shape(&self) -> Shape {
        [self.size[0], self.size[1], 0, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[Activation]) -> Demand {
        LatentDiffusion::of(model).map_or(Demand::default(), |networks| networks.vocode_demand(self.size[0]))
    }

    async fn run(&self, model: &Model, rows: &[Activation]) -> Result<Vec<Vec<f32>>, NetworkError> {
        LatentDiffusion::of(model)?.vocode(rows).await
    }

    fn most_rows(&self) -> usize {
        (FRAMES / self.size[0].max(1)).max(1)
    }

    fn is_finite(&self, samples: &Vec<f32>) -> bool {
        samples.iter().all(|sample| sample.is_finite())
    }
}
