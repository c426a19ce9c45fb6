//! The levels of the training timesteps.

use super::{Course, listed};
use crate::diffusion::error::InvalidSteps;
use crate::diffusion::point::Point;
use crate::diffusion::scheduler_config::{Ddim, Sampler, SchedulerConfig};
use crate::generation::Levels;

/// The levels of the training timesteps, which DDIM and PNDM also visit off the schedule's points.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trained {
    pub(super) config: SchedulerConfig,
    /// `⌊T/n⌋` training timesteps.
    pub(super) stride: f64,
}

impl Trained {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Trained {
        Trained { config: config.clone(), stride: (config.num_train_timesteps() / steps) as f64 }
    }

    pub(super) fn level(&self, t: f64) -> Point {
        let alphas_cumprod = self.config.betas.alphas_cumprod();
        let alpha_cumprod = if t >= 0.0 {
            alphas_cumprod[(t as usize).min(alphas_cumprod.len() - 1)]
        } else {
            match self.config.sampler {
                Sampler::Ddim(Ddim { set_alpha_to_one: false, .. }) | Sampler::Pndm { set_alpha_to_one: false, .. } => {
                    alphas_cumprod[0]
                }
                _ => 1.0,
            }
        };
        Point::of_alpha_cumprod(t, alpha_cumprod)
    }
}

/// DDPM, DDIM and PNDM: whole training timesteps.
pub(super) fn trained_points(trained: &Trained, course: Course<'_>) -> Result<Vec<Point>, InvalidSteps> {
    let config = &trained.config;
    let num_train_timesteps = config.num_train_timesteps();
    let timesteps = match course {
        Course::Over(Levels::Timesteps(timesteps)) => listed(timesteps, config)?,
        other => config.spacing.timesteps(num_train_timesteps, other.steps(config)?, config.steps_offset, true)?,
    };
    if let Some(t) = timesteps.iter().find(|t| **t >= num_train_timesteps as f64) {
        return Err(InvalidSteps::OutOfRange { t: *t, num_train_timesteps });
    }
    let last = timesteps[timesteps.len() - 1];
    let end = if let Sampler::Ddpm { .. } = config.sampler { -1.0 } else { last - trained.stride };
    Ok(timesteps.into_iter().chain([end]).map(|t| trained.level(t)).collect())
}

/// LCM and TCD: some of the timesteps that they were distilled at, of the last `kept` of these, and timestep `end`.
pub(super) fn distilled_points(
    trained: &Trained,
    (original_inference_steps, kept): (usize, usize),
    course: Course<'_>,
    end: f64,
) -> Result<Vec<Point>, InvalidSteps> {
    if let Course::Over(Levels::Timesteps(timesteps)) = course {
        let timesteps = listed(timesteps, &trained.config)?;
        return Ok(timesteps.into_iter().chain([end]).map(|t| trained.level(t)).collect());
    }
    let steps = course.steps(&trained.config)?;
    if steps > kept {
        return Err(InvalidSteps::TooMany { steps, max: kept });
    }
    let stride = trained.config.num_train_timesteps() / original_inference_steps;
    let left_out = |i: usize| (i as f64 * (kept as f64 / steps as f64)) as usize;
    let timestep = |i: usize| ((kept - left_out(i)) * stride - 1) as f64;
    Ok((0..steps).map(timestep).chain([end]).map(|t| trained.level(t)).collect())
}

/// IPNDM: betas of its own, `sin²` of shares of a right angle; the network is told the angle's share of the whole.  In
/// float32, whose rounding near the start the pictures show.
pub(super) fn ipndm_points(steps: usize) -> Vec<Point> {
    use std::f32::consts::PI;
    let share = |i: usize| 1.0 - i as f64 / steps as f64;
    let point = |i: usize| {
        let sine = libm::sinf(share(i) as f32 * PI / 2.0);
        let beta = sine * sine;
        let alpha = libm::sqrtf(1.0 - beta * beta);
        let t = libm::atan2f(beta, alpha) / PI * 2.0;
        Point { t: t.into(), alpha: alpha.into(), sigma: beta.into() }
    };
    (0..=steps).map(point).collect()
}
