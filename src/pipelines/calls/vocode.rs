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

/// The most frames of spectrograms that are in a batch, but always at least one spectrogram. Waveforms have some
/// hundred samples per frame and several channels inside the network, and a vocoder is not faster with more of them.
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
