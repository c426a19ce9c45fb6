//! Euler's method for EDM models (Karras et al. 2022, arXiv:2206.00364): diffusers' `EDMEulerScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use super::euler::euler;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{Last, edm_points};
use crate::diffusion::scheduler_config::keys::{EDM, Keys};
use crate::diffusion::scheduler_config::{Class, EdmLevels, Name, Sampler, SchedulerConfig, edm_prediction};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("edm_euler", "First-order solver for models that were trained as in Karras et al. (2022)")],
    prediction: edm_prediction,
    ..Class::new("EDMEulerScheduler", &[&EDM], read)
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct EdmEuler(EdmLevels);

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(EdmEuler(keys.edm_levels()?)))
}

impl Sampler for EdmEuler {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok(edm_points(&self.0, step_source.steps(config)?, Last::Repeated))
    }
}

/// The steps of [`euler`].
pub(super) async fn sample<D: Denoise>(_: &EdmEuler, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    euler(run).await
}
