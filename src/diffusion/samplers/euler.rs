//! Euler's method (Karras et al. 2022, arXiv:2206.00364): diffusers' `EulerDiscreteScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::euler_points;
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, TRAINING};
use crate::diffusion::scheduler_config::{Class, EulerLevels, Label, Name, Sampler, SchedulerConfig};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("euler", "First-order solver of Karras et al. (2022)")],
    is_over_alpha: true,
    ..Class::new("EulerDiscreteScheduler", KEYS, read)
};

const KEYS: &[&[&str]] = &[
    &TRAINING,
    &SPACING,
    &RESPACING,
    &["interpolation_type", "sigma_min", "sigma_max", "timestep_type", "final_sigmas_type", "rescale_betas_zero_snr"],
];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Euler(EulerLevels);

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Euler(EulerLevels {
        respacing: keys.respacing()?,
        log_linear: keys.word("interpolation_type", "linear", &[("linear", false), ("log_linear", true)])?,
        continuous: keys.word("timestep_type", "discrete", &[("discrete", false), ("continuous", true)])?,
        end: keys.final_sigma()?,
    })))
}

impl Sampler for Euler {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        euler_points(config, step_source, &self.0)
    }

    fn respacing(&self) -> Option<Respacing> {
        self.0.respacing
    }

    fn label(&self) -> Label {
        Label::WithLevels("Euler")
    }
}

pub(super) async fn sample<D: Denoise>(_: &Euler, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    euler(run).await
}

/// Algorithm 2 of Karras et al. (2022) without churn and without correction, with states `x = x0 + σ ε`.
pub(super) async fn euler<D: Denoise>(run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let denoised = network.denoised(&x, &now, Clip::Nothing).await?;
        let d = Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        x = Latents::combine(&[(1.0, &x), (sigma_next - sigma, &d)]);
        x = network.adjusted(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
