//! Euler's method with ancestral noise (variance of Ho et al. 2020, arXiv:2006.11239): diffusers'
//! `EulerAncestralDiscreteScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::euler_points;
use crate::diffusion::scheduler_config::keys::{Keys, SPACING, TRAINING};
use crate::diffusion::scheduler_config::{
    Class, EulerLevels, Label, Name, Sampler, SchedulerConfig, epsilon_or_velocity,
};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("euler_a", "Euler steps with ancestral noise")],
    prediction: epsilon_or_velocity,
    is_over_alpha: true,
    ..Class::new("EulerAncestralDiscreteScheduler", &[&TRAINING, &SPACING, &["rescale_betas_zero_snr"]], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct EulerAncestral;

fn read(_: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(EulerAncestral))
}

impl Sampler for EulerAncestral {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        euler_points(config, step_source.without_lists(config)?, &EulerLevels::plain(None))
    }

    fn label(&self) -> Label {
        Label::WithLevels("Euler a")
    }
}

/// Euler steps down to `σ_down`, each followed by noise up to the next level, so that a step has the variance of an
/// ancestral step of Ho et al. (2020). States are `x = x0 + σ ε`. Every step draws noise, also the last one, where the
/// noise is multiplied by zero.
pub(super) async fn sample<D: Denoise>(_: &EulerAncestral, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let denoised = network.denoised(&x, &now, Clip::Nothing).await?;
        // σ_up² + σ_down² = σ_next², with σ_down = σ_next²/σ.
        let sigma_down = sigma_next * sigma_next / sigma;
        let sigma_up = libm::sqrt((sigma_next * sigma_next - sigma_down * sigma_down).max(0.0));
        let d = Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        let z = noise.draw(x.shape());
        x = Latents::combine(&[(1.0, &x), (sigma_down - sigma, &d), (sigma_up, &z)]);
        x = network.adjusted(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}
