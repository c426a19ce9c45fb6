//! The call for a prediction by a U-Net that takes no text.

use async_trait::async_trait;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, PlainUNet,
        call::{Call, LogFormat, RowMetric, Shape},
    },
};

/// Computes the network's raw prediction, (`outputs`, h, w), for noisy samples, each with its own time and class.
#[derive(Clone, Copy, Debug)]
pub struct Predict {
    /// The shape (C, h, w) of a sample.
    pub shape: [usize; 3],
    /// Channels of the prediction: C, or 2C if the network also predicts variances.
    pub outputs: usize,
}

/// The input of one sample.
#[derive(Clone, Debug)]
pub struct PredictRow {
    /// The noisy sample, (C, h, w).
    pub sample: Vec<f32>,
    /// A timestep, or a noise level if the network takes noise levels.
    pub t: f32,
    /// The class, for networks that take one.
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

    fn row_metric(&self) -> RowMetric {
        RowMetric::Step
    }

    fn is_finite(&self, prediction: &Vec<f32>) -> bool {
        prediction.iter().all(|value| value.is_finite())
    }

    fn log(&self) -> Option<LogFormat<Vec<f32>>> {
        Some(LogFormat::of_numbers(self.outputs * self.shape[1] * self.shape[2]))
    }
}
