//! The midpoint method in ln σ: DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927) with the σ of Karras et al. (2022,
//! arXiv:2206.00364); diffusers' `KDPM2DiscreteScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Clip;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::euler_points;
use crate::diffusion::scheduler_config::keys::{Keys, RESPACING, SPACING, TRAINING};
use crate::diffusion::scheduler_config::{
    Class, EulerLevels, Label, Name, RunPoints, Sampler, SchedulerConfig, Training, epsilon_or_velocity,
};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    names: &[Name::new("dpm2", "Midpoint method in the logarithm of the noise, two network calls a step")],
    training: Training::LATENTS,
    prediction: epsilon_or_velocity,
    is_over_alpha: true,
    ..Class::new("KDPM2DiscreteScheduler", &[&TRAINING, &SPACING, &RESPACING], read)
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dpm2 {
    respacing: Option<Respacing>,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    Ok(Arc::new(Dpm2 { respacing: keys.respacing()? }))
}

impl Sampler for Dpm2 {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        levels(self.respacing, config, step_source)
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.at_both_ends()
    }

    fn respacing(&self) -> Option<Respacing> {
        self.respacing
    }

    fn label(&self) -> Label {
        Label::WithLevels("DPM2")
    }
}

pub(super) async fn sample<D: Denoise>(_: &Dpm2, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    dpm2(run, false).await
}

/// Algorithm 2 of Karras et al. (2022) with states `x = x0 + σ ε`. As in DPM-Solver-2, the trial step goes to the
/// geometric mean of the levels at the step's start and end. `ancestral` steps go down to `σ_down`, and a draw of noise
/// brings the state up to the next level. The last step, to zero noise, is an Euler step.
pub(super) async fn dpm2<D: Denoise>(run: SamplerInputs<'_, D>, ancestral: bool) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let table = schedule.sigma_table();
    for (i, (now, next)) in schedule.steps().enumerate() {
        let (sigma, sigma_next) = (now.noise(), next.noise());
        let mut denoised = network.denoised(&x, &now, Clip::Nothing).await?;
        let d = Latents::combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        if sigma_next == 0.0 {
            x = Latents::combine(&[(1.0, &x), (-sigma, &d)]);
        } else {
            let (down, up) = if ancestral { down_and_up(sigma, sigma_next) } else { (sigma_next, 0.0) };
            let middle = between(sigma, down);
            let half = network.adjusted(Latents::combine(&[(1.0, &x), (middle - sigma, &d)]));
            let there = Point::of_noise(table.timestep_of(middle), middle);
            denoised = network.denoised(&half, &there, Clip::Nothing).await?;
            let d = Latents::combine(&[(1.0 / middle, &half), (-1.0 / middle, &denoised)]);
            x = Latents::combine(&[(1.0, &x), (down - sigma, &d)]);
            if ancestral {
                let z = noise.draw(x.shape());
                x = Latents::combine(&[(1.0, &x), (up, &z)]);
            }
        }
        x = network.adjusted(x);
        network.stepped(i, &denoised);
    }
    Ok(x)
}

/// The geometric mean of two levels, with the roundings of torch.
pub(super) fn between(sigma: f64, down: f64) -> f64 {
    let (high, low) = (libm::logf(sigma as f32), libm::logf(down as f32));
    f64::from(libm::expf(high - 0.5 * (high - low)))
}

/// `σ_down = σ_next²/σ`, and `σ_up` from `σ_up² + σ_down² = σ_next²`. diffusers subtracts in float32, where long steps
/// lose most digits; this function subtracts in `f64`.
pub(super) fn down_and_up(sigma: f64, sigma_next: f64) -> (f64, f64) {
    let down = sigma_next * sigma_next / sigma;
    (down, libm::sqrt((sigma_next * sigma_next - down * down).max(0.0)))
}

/// The levels of the Euler family; the timesteps of karras levels are rounded to integers.
pub(super) fn levels(
    respacing: Option<Respacing>,
    config: &SchedulerConfig,
    step_source: StepSource<'_>,
) -> Result<(Vec<Point>, f64), InvalidSteps> {
    let (mut points, max) = euler_points(config, step_source.without_lists(config)?, &EulerLevels::plain(respacing))?;
    if respacing == Some(Respacing::Karras) {
        points.iter_mut().for_each(|point| point.t = point.t.round_ties_even());
    }
    Ok((points, max))
}
