//! The call for the gradient of a classifier of noisy pictures.

use async_trait::async_trait;

use crate::{
    models::demand::Demand,
    pipelines::{
        Model, NetworkError, PlainUNet,
        call::{Call, LogFormat, Shape},
        calls::PredictRow,
    },
};

/// Computes `∇ ln p(class | sample, time)`, (C, h, w), for each of several noisy samples with their times and classes.
#[derive(Clone, Copy, Debug)]
pub struct ClassGradient {
    /// The shape (C, h, w) of a sample.
    pub shape: [usize; 3],
}

#[async_trait]
impl Call for ClassGradient {
    type Row = PredictRow;
    type Answer = Vec<f32>;

    fn network(&self) -> &'static str {
        "classifier"
    }

    fn shape(&self) -> Shape {
        let [c, h, w] = self.shape;
        [c, h, w, 0, 0, 0]
    }

    fn demand(&self, model: &Model, _rows: &[PredictRow]) -> Demand {
        model.networks::<PlainUNet>().map_or(Demand::default(), PlainUNet::gradient_demand)
    }

    async fn run(&self, model: &Model, rows: &[PredictRow]) -> Result<Vec<Vec<f32>>, NetworkError> {
        model.networks::<PlainUNet>()?.class_gradient(self.shape, rows).await
    }

    fn is_finite(&self, gradient: &Vec<f32>) -> bool {
        gradient.iter().all(|value| value.is_finite())
    }

    fn log(&self) -> Option<LogFormat<Vec<f32>>> {
        Some(LogFormat::of_numbers(self.shape.iter().product()))
    }
}
