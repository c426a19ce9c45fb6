//! A step of a sampler by a U-Net that takes no text.

use async_trait::async_trait;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, PlainUNet,
        call::{Call, Counts, LogFormat, Shape},
    },
};

/// Noisy samples, each with its own time and class → the network's raw prediction for each, (C, h, w).
#[derive(Clone, Copy, Debug)]
pub struct Predict {
    /// (C, h, w) of a sample.
    pub shape: [usize; 3],
    /// Channels of the answer: C, or twice as many where the network predicts variances too.
    pub outputs: usize,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct PredictRow {
    /// (C, h, w)
    pub sample: Vec<f32>,
    /// A timestep, or a noise level where the network is told noise levels.
    pub t: f32,
    /// Where the network has classes.
    pub class: Option<u32>,
}

#[async_trait]
impl Call for Predict {
    type Row = PredictRow;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "denoiser"
    }

    fn shape(&self) -> Shape {
        let [c, h, w] = self.shape;
        [c, h, w, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[PredictRow]) -> Demand {
        let [_, h, w] = self.shape;
        model.networks::<PlainUNet>().map_or(Demand::default(), |networks| networks.predict_demand([h, w]))
    }

    async fn run(&self, model: &Model, rows: &[PredictRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        model.networks::<PlainUNet>()?.predict(self.shape, rows).await
    }

    fn counts(&self) -> Counts {
        Counts::Step
    }

    fn is_finite(prediction: &Vec<f32>) -> bool {
        prediction.iter().all(|value| value.is_finite())
    }

    fn log(&self) -> Option<LogFormat<Vec<f32>>> {
        Some(LogFormat {
            values: self.outputs * self.shape[1] * self.shape[2],
            write: |prediction| Some(prediction),
            read: |prediction| prediction,
        })
    }
}
