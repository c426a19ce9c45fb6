//! Heun's method (Karras et al. 2022, arXiv:2206.00364): diffusers' `HeunDiscreteScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::betas::BetaSchedule;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::euler_points;
use crate::diffusion::scheduler_config::keys::{CLIP_SAMPLE, Keys, RESPACING, SPACING, TRAINING};
use crate::diffusion::scheduler_config::{
    Class, EulerLevels, Label, Name, RunPoints, Sampler, SchedulerConfig, Training,
};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("heun", "Second-order solver of Karras et al. (2022), two network calls a step")],
    training: Training { beta_schedules: &[("exp", BetaSchedule::Exp)], ..Training::LATENTS },
    is_over_alpha: true,
    ..Class::new("HeunDiscreteScheduler", &[&TRAINING, &SPACING, &CLIP_SAMPLE, &RESPACING], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Heun {
    respacing: Option<Respacing>,
    clip: Clip,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Heun { respacing: keys.respacing()?, clip: keys.clip_sample(false)? }))
}

impl Sampler for Heun {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        euler_points(config, step_source.without_sigmas(config)?, &EulerLevels::plain(self.respacing))
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.at_both_ends()
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn label(&self) -> Label {
        Label::WithLevels("Heun")
    }
}

/// Algorithm 1 of Karras et al. (2022) with states `x = x0 + σ ε`. Each step has two network calls; a step to
/// σ = 0 has one, because there is no slope at its end.
pub(super) async fn sample<D: Denoise>(options: &Heun, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, .. } = run;
    let clip = options.clip;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let mut denoised = network.denoised(&x, &now, clip).await?;
        let mut d = Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        if sigma_next > 0.0 {
            let euler = network.adjusted(Latents::combine(&[(1.0, &x), (sigma_next - sigma, &d)]));
            denoised = network.denoised(&euler, &next, clip).await?;
            let d_next = Latents::combine(&[(1.0 / sigma_next, &euler), (-1.0 / sigma_next, &denoised)]);
            d = Latents::combine(&[(0.5, &d), (0.5, &d_next)]);
        }
        x = Latents::combine(&[(1.0, &x), (sigma_next - sigma, &d)]);
        x = network.adjusted(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
