//! The midpoint method in ln σ with ancestral noise (Lu et al. 2022, arXiv:2206.00927; Karras et al. 2022,
//! arXiv:2206.00364): diffusers' `KDPM2AncestralDiscreteScheduler`.

use std::sync::Arc;

use super::{SamplerInputs, dpm2};
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::sample::Denoise;
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, TRAINING};
use crate::diffusion::scheduler_config::{
    Class, Label, Name, RunPoints, Sampler, SchedulerConfig, Training, epsilon_or_velocity,
};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("dpm2_a", "Midpoint method with ancestral noise, two network calls a step")],
    training: Training::LATENTS,
    prediction: epsilon_or_velocity,
    is_over_alpha: true,
    ..Class::new("KDPM2AncestralDiscreteScheduler", &[&TRAINING, &SPACING, &RESPACING], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dpm2Ancestral {
    respacing: Option<Respacing>,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Dpm2Ancestral { respacing: keys.respacing()? }))
}

impl Sampler for Dpm2Ancestral {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        dpm2::levels(self.respacing, config, step_source)
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.at_both_ends()
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn label(&self) -> Label {
        Label::WithLevels("DPM2 a")
    }
}

/// The steps of [`dpm2`](dpm2::dpm2) down to `σ_down`, each followed by a draw of noise up to the next level.
pub(super) async fn sample<D: Denoise>(_: &Dpm2Ancestral, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    dpm2::dpm2(run, true).await
}
