//! Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469): diffusers' `CMStochasticIterativeScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::{of_rho, rounded};
use crate::diffusion::scheduler_config::keys::Keys;
use crate::diffusion::scheduler_config::{Class, Sampler, SchedulerConfig, Training};
use crate::diffusion::step_source::{StepSource, listed};
use crate::generation::Levels;

pub(super) static CLASS: Class = Class {
    training: Training { num_train_timesteps: 40, ..Training::PIXELS },
    prediction,
    ..Class::new("CMStochasticIterativeScheduler", KEYS, read)
};

const KEYS: &[&[&str]] =
    &[&["num_train_timesteps", "sigma_min", "sigma_max", "sigma_data", "s_noise", "rho", "clip_denoised"]];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Consistency {
    sigma_min: f64,
    sigma_max: f64,
    rho: f64,
    s_noise: f64,
    clip: Clip,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    let (sigma_min, sigma_max, rho) = keys.edm_range()?;
    let clip = if keys.flag("clip_denoised", true)? { Clip::Range(1.0) } else { Clip::Nothing };
    let s_noise = keys.positive("s_noise")?.unwrap_or(1.0);
    Ok(Arc::new(Consistency { sigma_min, sigma_max, rho, s_noise, clip }))
}

fn prediction(keys: Keys<'_>, _: &Class) -> Result<Prediction, InvalidScheduler> {
    let sigma_data = keys.positive("sigma_data")?.unwrap_or(0.5);
    let sigma_min = keys.positive("sigma_min")?.unwrap_or(0.002);
    Ok(Prediction::Boundary { sigma_data, sigma_min })
}

impl Sampler for Consistency {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((points(config, self, step_source.without_sigmas(config)?)?, self.sigma_max))
    }
}

/// Algorithm 1 of Song et al. (2023) with states `x = x0 + σ ε`. Every step draws noise, also the last one, where the
/// noise is multiplied by zero; a schedule of one step draws no noise.
pub(super) async fn sample<D: Denoise>(options: &Consistency, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    for (i, (now, next)) in schedule.steps().enumerate() {
        let x0 = network.denoised(&x, &now, options.clip).await?;
        x = x0.clone();
        if schedule.whole() > 1 {
            let sigma = next.sigma.max(options.sigma_min).min(options.sigma_max);
            let up = libm::sqrt((sigma * sigma - options.sigma_min * options.sigma_min).max(0.0));
            let z = noise.draw(x.shape());
            x = Latents::combine(&[(1.0, &x), (options.s_noise * up, &z)]);
        }
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// The levels at some of the `T` training timesteps, and the smallest level as the end.
fn points(
    config: &SchedulerConfig,
    options: &Consistency,
    step_source: StepSource<'_>,
) -> Result<Vec<Point>, InvalidSteps> {
    let train = config.num_train_timesteps();
    let timesteps = match step_source {
        StepSource::Over(Levels::Timesteps(timesteps)) => listed(timesteps, config)?,
        other => {
            let n = other.steps(config)?;
            (0..n).rev().map(|i| (i * (train / n)) as f64).collect()
        }
    };
    let Consistency { sigma_min, sigma_max, rho, .. } = *options;
    let last = (train.max(2) - 1) as f64;
    let point = |t: &f64| {
        let sigma = of_rho(sigma_max, sigma_min, rho, t / last);
        Point::of_edm(250.0 * libm::log(sigma), rounded(sigma))
    };
    // In this class, timestep 0 belongs to the largest level, so the falling list is reversed.
    Ok(timesteps.iter().rev().map(point).chain([Point::of_edm(0.0, rounded(sigma_min))]).collect())
}
