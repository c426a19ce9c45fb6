//! Sampling of a variance-preserving SDE (Song et al. 2021, arXiv:2011.13456): the predictor of diffusers'
//! `ScoreSdeVpScheduler`, and optional corrections, which diffusers does not have for this scheduler.

use std::sync::Arc;

use super::SamplerInputs;
use super::langevin::langevin;
use crate::diffusion::betas::linspace;
use crate::diffusion::error::{Error, InvalidScheduler, InvalidSteps};
use crate::diffusion::latents::Latents;
use crate::diffusion::point::Point;
use crate::diffusion::prediction::Prediction;
use crate::diffusion::sample::Denoise;
use crate::diffusion::schedule::rounded;
use crate::diffusion::scheduler_config::keys::{Keys, MAX_TRAIN_TIMESTEPS, SCORE_SDE};
use crate::diffusion::scheduler_config::{Class, RunPoints, Sampler, SchedulerConfig, Training};
use crate::diffusion::step_source::StepSource;

pub(super) static CLASS: Class = Class {
    training: Training { num_train_timesteps: 2000, ..Training::PIXELS },
    prediction: |_, _| Ok(Prediction::Epsilon),
    ..Class::new("ScoreSdeVpScheduler", &[&SCORE_SDE, &["beta_min", "beta_max"]], read)
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScoreSdeVp {
    beta_min: f64,
    beta_max: f64,
    /// The time of the last step; the first step is at time 1.
    sampling_eps: f64,
    /// Signal-to-noise ratio of a correction.
    snr: f64,
    /// The number of corrections before each prediction.
    correct_steps: usize,
    /// Whether to predict along the deterministic equation.
    probability_flow: bool,
    /// The last timestep of training, which the network receives at time 1, that is, in the first step.
    max_timestep: f64,
}

fn read(keys: Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler> {
    let beta = |key: &str, default: f64| -> Result<f64, InvalidScheduler> {
        let bound = "a number from 1e-6 to 1000";
        Ok(keys.number(key, bound, |beta| (1e-6..=1000.0).contains(&beta))?.unwrap_or(default))
    };
    let (beta_min, beta_max) = (beta("beta_min", 0.1)?, beta("beta_max", 20.0)?);
    if beta_min > beta_max {
        return Err(InvalidScheduler::Conflict { keys: "beta_min and beta_max", why: "the noise would shrink" });
    }
    Ok(Arc::new(ScoreSdeVp {
        beta_min,
        beta_max,
        sampling_eps: keys.sampling_eps(1e-3)?,
        snr: keys.positive("snr")?.unwrap_or(0.16),
        correct_steps: keys.correct_steps(0)?,
        probability_flow: keys.flag("probability_flow", false)?,
        max_timestep: (keys.integer("num_train_timesteps", 2000, 2, MAX_TRAIN_TIMESTEPS)? - 1) as f64,
    }))
}

impl Sampler for ScoreSdeVp {
    fn levels(&self, config: &SchedulerConfig, step_source: StepSource<'_>) -> Result<(Vec<Point>, f64), InvalidSteps> {
        Ok((points(self, step_source.steps(config)?), 1.0))
    }

    fn timeline(&self, run: &RunPoints<'_>) -> Vec<Point> {
        run.times(self.correct_steps + 1)
    }
}

/// The Euler-Maruyama predictor of Song et al. (2021) on the reverse of equation 11. States are `x = α x0 + σ ε`; the
/// network predicts ε, so the score is `−ε/σ`. Every step draws noise from the generator, but the last step multiplies
/// this noise by zero and so returns the mean. `correct_steps` adds corrections of algorithm 5 before each prediction.
/// With `probability_flow`, the predictor follows the deterministic equation (appendix D.1), which has half the drift
/// of the score, and draws no noise.
pub(super) async fn sample<D: Denoise>(options: &ScoreSdeVp, run: SamplerInputs<'_, D>) -> Result<Latents, Error> {
    let SamplerInputs { network, schedule, mut x, noise, .. } = run;
    let dt = 1.0 / schedule.whole() as f64;
    let last = schedule.whole() - 1;
    for (i, (now, _)) in schedule.steps().enumerate() {
        let beta = options.beta(options.time(now.t));
        for _ in 0..options.correct_steps {
            let score = network.raw(&x, now.t).await?.scale(-1.0 / now.sigma);
            x = network.adjusted(langevin(&x, &score, options.snr, 1.0 - beta * dt, noise));
        }
        let epsilon = network.raw(&x, now.t).await?;
        let x0 = network.prediction.x0(&x, &epsilon, &now, 1.0);
        let (kept, drift) = (1.0 + 0.5 * beta * dt, -beta * dt / now.sigma);
        x = if options.probability_flow {
            Latents::combine(&[(kept, &x), (0.5 * drift, &epsilon)])
        } else {
            let z = noise.draw(x.shape());
            let spread = if schedule.run().start + i < last { libm::sqrt(beta * dt) } else { 0.0 };
            Latents::combine(&[(kept, &x), (drift, &epsilon), (spread, &z)])
        };
        x = network.adjusted(x);
        network.stepped(i, &x0);
    }
    Ok(x)
}

impl ScoreSdeVp {
    /// `β(t)` at a time in (0, 1].
    fn beta(&self, time: f64) -> f64 {
        self.beta_min + time * (self.beta_max - self.beta_min)
    }

    /// `ln α` at a time in (0, 1].
    fn log_alpha(&self, time: f64) -> f64 {
        -0.25 * time * time * (self.beta_max - self.beta_min) - 0.5 * time * self.beta_min
    }

    fn timestep(&self, time: f64) -> f64 {
        time * self.max_timestep
    }

    fn time(&self, timestep: f64) -> f64 {
        timestep / self.max_timestep
    }
}

/// The points of the variance-preserving equation (equation 33 of Song et al. 2021), at scaled training timesteps, and
/// the end without noise.
fn points(options: &ScoreSdeVp, n: usize) -> Vec<Point> {
    let point = |time: f32| {
        let time = f64::from(time);
        let log_alpha = options.log_alpha(time);
        let alpha = rounded(libm::exp(log_alpha));
        let sigma = rounded(libm::sqrt(-libm::expm1(2.0 * log_alpha)));
        Point { t: options.timestep(time), alpha, sigma }
    };
    let points = linspace(1.0, options.sampling_eps as f32, n).into_iter().map(point);
    points.chain([Point { t: 0.0, alpha: 1.0, sigma: 0.0 }]).collect()
}
