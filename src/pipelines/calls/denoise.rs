//! The call for a prediction by a denoiser that is conditioned on text.

use async_trait::async_trait;

use crate::{
    models::{demand::Demand, latent_diffusion::Part},
    pipelines::{
        Control, DenoiseRow, Denoised, Depth, LatentDiffusion, Model, NetworkError,
        call::{Call, LogFormat, RowMetric, Shape},
    },
};

/// Computes the network's raw prediction for each row of latents. Each row has its own timestep and context. `depth`
/// says how much of the network is computed.
#[derive(Clone, Copy, Debug)]
pub struct DenoiseCall {
    /// The shape (C, h, w) of the network's input.
    pub shape: [usize; 3],
    /// The shape (L, D) of the text embedding. If the network masks padding, embeddings may have fewer tokens.
    pub context: [usize; 2],
    pub depth: Depth,
    /// Channels of the prediction.
    pub channels: usize,
}

impl DenoiseCall {
    fn size(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }

    /// The work and memory of a row's ControlNets.
    fn control_demand(&self, controls: &[Control]) -> Demand {
        let of = |control: &Control| control.net.demand(self.size(), self.context[0]);
        controls.iter().map(of).fold(Demand::default(), Demand::and)
    }
}

#[async_trait]
impl Call for DenoiseCall {
    type Row = DenoiseRow;
    type Answer = Denoised;

    fn network(&self) -> &'static str {
        match self.depth {
            Depth::Full | Depth::Keeping => "denoiser",
            Depth::Shallow => "denoiser_shallow",
        }
    }

    fn shape(&self) -> Shape {
        let ([c, h, w], [length, width]) = (self.shape, self.context);
        [c, h, w, length, width, self.depth as usize]
    }

    fn demand(&self, model: &Model, rows: &[DenoiseRow]) -> Demand {
        let part = Part::Denoise {
            size: self.size(),
            tokens: self.context[0],
            shallow: self.depth == Depth::Shallow,
            adapted: rows.iter().any(|row| !row.adapters.is_empty()),
        };
        let controls = rows.iter().map(|row| self.control_demand(&row.controls));
        let controls = controls.max_by(|a, b| a.work.total_cmp(&b.work)).unwrap_or_default();
        LatentDiffusion::demand(model, part).and(controls)
    }

    async fn run(&self, model: &Model, rows: &[DenoiseRow]) -> Result<Vec<Denoised>, NetworkError> {
        LatentDiffusion::of(model)?.denoise(self.shape, self.depth, rows).await
    }

    fn row_metric(&self) -> RowMetric {
        match self.depth {
            Depth::Full | Depth::Keeping => RowMetric::Step,
            Depth::Shallow => RowMetric::ShallowStep,
        }
    }

    fn is_finite(&self, denoised: &Denoised) -> bool {
        denoised.prediction.iter().all(|value| value.is_finite())
    }

    /// Answers with deep features end the log, because the log does not store features.
    fn log(&self) -> Option<LogFormat<Denoised>> {
        Some(LogFormat {
            values: self.channels * self.shape[1] * self.shape[2],
            write: |denoised| denoised.features.is_none().then_some(&denoised.prediction),
            read: |prediction| Denoised { prediction, features: None },
        })
    }
}
