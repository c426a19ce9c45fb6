//! Noise levels at the training timesteps.

use crate::diffusion::error::InvalidSteps;
use crate::diffusion::point::Point;
use crate::diffusion::scheduler_config::SchedulerConfig;
use crate::diffusion::step_source::{StepSource, listed};
use crate::generation::Levels;

impl SchedulerConfig {
    /// The level of training timestep `t`; for negative `t`, the level after the last step.
    pub(in crate::diffusion) fn level(&self, t: f64) -> Point {
        let alphas_cumprod = self.betas.alphas_cumprod();
        let alpha_cumprod = if t >= 0.0 {
            alphas_cumprod[(t as usize).min(alphas_cumprod.len() - 1)]
        } else if self.sampler.ends_at_first_timestep() {
            alphas_cumprod[0]
        } else {
            1.0
        };
        Point::of_alpha_cumprod(t, alpha_cumprod)
    }

    /// The length of one of `steps` steps in training timesteps, rounded down.
    pub(in crate::diffusion) fn stride(&self, steps: usize) -> f64 {
        (self.num_train_timesteps() / steps) as f64
    }
}

/// Points at whole training timesteps, and the point after the last step. `end` computes the timestep of this point
/// from the last training timestep of the run.
pub(in crate::diffusion) fn trained_points(
    config: &SchedulerConfig,
    step_source: StepSource<'_>,
    end: impl Fn(f64) -> f64,
) -> Result<Vec<Point>, InvalidSteps> {
    let num_train_timesteps = config.num_train_timesteps();
    let timesteps = match step_source {
        StepSource::Over(Levels::Timesteps(timesteps)) => listed(timesteps, config)?,
        other => config.spacing.timesteps(num_train_timesteps, other.steps(config)?, config.steps_offset, true)?,
    };
    if let Some(t) = timesteps.iter().find(|t| **t >= num_train_timesteps as f64) {
        return Err(InvalidSteps::OutOfRange { t: *t, num_train_timesteps });
    }
    let end = end(timesteps[timesteps.len() - 1]);
    Ok(timesteps.into_iter().chain([end]).map(|t| config.level(t)).collect())
}

/// Points of a distilled model, and the point after the last step, at timestep `end`. The model was distilled at
/// `original_inference_steps` timesteps; the points are evenly spaced among the lowest `kept` of these. Explicit
/// timesteps can be any training timesteps.
pub(in crate::diffusion) fn distilled_points(
    config: &SchedulerConfig,
    (original_inference_steps, kept): (usize, usize),
    step_source: StepSource<'_>,
    end: f64,
) -> Result<Vec<Point>, InvalidSteps> {
    if let StepSource::Over(Levels::Timesteps(timesteps)) = step_source {
        let timesteps = listed(timesteps, config)?;
        return Ok(timesteps.into_iter().chain([end]).map(|t| config.level(t)).collect());
    }
    let steps = step_source.steps(config)?;
    if steps > kept {
        return Err(InvalidSteps::TooMany { steps, max: kept });
    }
    let stride = config.num_train_timesteps() / original_inference_steps;
    let left_out = |i: usize| (i as f64 * (kept as f64 / steps as f64)) as usize;
    let timestep = |i: usize| ((kept - left_out(i)) * stride - 1) as f64;
    Ok((0..steps).map(timestep).chain([end]).map(|t| config.level(t)).collect())
}
