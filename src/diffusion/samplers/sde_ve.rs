//! Predictor-corrector sampling of a variance-exploding SDE (Song et al. 2021, arXiv:2011.13456): diffusers'
//! `ScoreSdeVeScheduler`.

use std::sync::Arc;

use super::SamplerInputs;
use super::langevin::langevin;
use crate::diffusion::betas::linspace;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::sample::Denoise;
use crate::diffusion::scheduler_config::keys::{Keys, SCORE_SDE};
use crate::diffusion::scheduler_config::{Class, RunPoints, Sampler, SchedulerConfig, Training};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    training: Training { num_train_timesteps: 2000, ..Training::PIXELS },
    prediction: |_, _| Ok(Prediction::Score),
    ..Class::new("ScoreSdeVeScheduler", &[&SCORE_SDE, &["sigma_min", "sigma_max"]], read)
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScoreSdeVe {
    sigma_min: f64,
    sigma_max: f64,
    /// The time of the last step; the first step is at time 1.
    sampling_eps: f64,
    /// Signal-to-noise ratio of a correction.
    snr: f64,
    /// The number of corrections before each prediction.
    correct_steps: usize,
    /// Whether to predict along the deterministic equation.
    probability_flow: bool,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    let sigma_min = keys.positive("sigma_min")?.unwrap_or(0.01);
    let sigma_max = keys.positive("sigma_max")?.unwrap_or(1348.0);
    if sigma_min > sigma_max {
        return Err(InvalidScheduler::Conflict { keys: "sigma_min and sigma_max", why: "the levels would rise" });
    }
    Ok(Arc::new(ScoreSdeVe {
        sigma_min,
        sigma_max,
        sampling_eps: keys.sampling_eps(1e-5)?,
        snr: keys.positive("snr")?.unwrap_or(0.15),
        correct_steps: keys.correct_steps(1)?,
        probability_flow: keys.flag("probability_flow", false)?,
    }))
}

impl Sampler for ScoreSdeVe {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((points(self, step_source.steps(config)?), self.sigma_max))
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.times(self.correct_steps + 1)
    }
}

/// Algorithm 2 of Song et al. (2021) with the reverse diffusion predictor of equation 46. States are `x = x0 + σ ε`,
/// and the network predicts the score `∇ ln p(x)`. Each step corrects before it predicts. Every correction and every
/// prediction draws noise; the last prediction returns its mean, without noise. `probability_flow` predicts along the
/// deterministic equation (appendix D.1): with half the drift and without noise.
pub(super) async fn sample<D: Denoise>(options: &ScoreSdeVe, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let steps = steps(options, schedule.whole());
    let last = schedule.whole() - 1;
    for (i, (now, _)) in schedule.steps().enumerate() {
        let step = &steps[schedule.run().start + i];
        for _ in 0..options.correct_steps {
            let score = network.raw(&x, now.t).await?;
            x = network.adjusted(langevin(&x, &score, options.snr, 1.0, noise));
        }
        let score = network.raw(&x, now.t).await?;
        let x0 = Prediction::Score.x0(&x, &score, &now, 1.0);
        // G² of the paper: the variance between this level and the level below.
        let variance = (step.sigma * step.sigma - step.below * step.below).max(0.0);
        x = if options.probability_flow {
            Latents::combine(&[(1.0, &x), (0.5 * variance, &score)])
        } else {
            let z = noise.draw(x.shape());
            let spread = if schedule.run().start + i < last { libm::sqrt(variance) } else { 0.0 };
            Latents::combine(&[(1.0, &x), (variance, &score), (spread, &z)])
        };
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

/// One step of the variance-exploding equation.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    /// The timestep that the network receives: σ at the time of the step.
    network_sigma: f64,
    /// The level that the update of the state uses, from the table of `n` levels.
    sigma: f64,
    /// The level below `sigma` in the table; zero below the first.
    below: f64,
}

/// The `n` steps of the variance-exploding equation. diffusers has two tables that nearly agree: one gives the levels
/// for the network, the other the levels for the update.
fn steps(options: &ScoreSdeVe, n: usize) -> Vec<Step> {
    let ScoreSdeVe { sigma_min, sigma_max, sampling_eps, .. } = *options;
    let ratio = (sigma_max / sigma_min) as f32;
    let logarithms = linspace(libm::log(sigma_min) as f32, libm::log(sigma_max) as f32, n);
    let table: Vec<f64> = logarithms.into_iter().map(|log| f64::from(libm::expf(log))).collect();
    let step = |t: f32| {
        let k = ((t * (n - 1) as f32) as usize).min(n - 1);
        let network_sigma = f64::from(libm::powf(ratio, t) * sigma_min as f32);
        Step { network_sigma, sigma: table[k], below: k.checked_sub(1).map_or(0.0, |below| table[below]) }
    };
    linspace(1.0, sampling_eps as f32, n).into_iter().map(step).collect()
}

/// A point for each of the [`steps`], and the end without noise.
fn points(options: &ScoreSdeVe, n: usize) -> Vec<Point> {
    let steps = steps(options, n).into_iter().map(|step| Point::of_edm(step.network_sigma, step.sigma));
    steps.chain([Point::of_edm(0.0, 0.0)]).collect()
}
