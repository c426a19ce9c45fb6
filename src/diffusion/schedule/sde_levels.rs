//! The levels of the score SDEs, which end at a small time and not at zero.  Rounded where diffusers rounds.

use super::rounded;
use crate::diffusion::betas::linspace;
use crate::diffusion::point::Point;
use crate::diffusion::scheduler_config::{ScoreSdeVe, ScoreSdeVp};

/// One step of the variance-exploding equation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::diffusion) struct VeStep {
    /// What the network is told: σ at the step's time.
    pub(in crate::diffusion) told: f64,
    /// The level of the table that the update counts with.
    pub(in crate::diffusion) sigma: f64,
    /// The level below it in the table; zero below the first.
    pub(in crate::diffusion) below: f64,
}

/// The `n` steps of the variance-exploding equation.  diffusers has two tables that nearly agree, and takes the network's level from
/// one and the update's from the other.
pub(in crate::diffusion) fn ve_steps(options: &ScoreSdeVe, n: usize) -> Vec<VeStep> {
    let ScoreSdeVe { sigma_min, sigma_max, sampling_eps, .. } = *options;
    let ratio = (sigma_max / sigma_min) as f32;
    let logarithms = linspace(libm::log(sigma_min) as f32, libm::log(sigma_max) as f32, n);
    let table: Vec<f64> = logarithms.into_iter().map(|log| f64::from(libm::expf(log))).collect();
    let step = |t: f32| {
        let k = ((t * (n - 1) as f32) as usize).min(n - 1);
        let told = f64::from(libm::powf(ratio, t) * sigma_min as f32);
        VeStep { told, sigma: table[k], below: k.checked_sub(1).map_or(0.0, |below| table[below]) }
    };
    linspace(1.0, sampling_eps as f32, n).into_iter().map(step).collect()
}

/// A point for each of the [`ve_steps`], and the end without noise.
pub(super) fn ve_points(options: &ScoreSdeVe, n: usize) -> Vec<Point> {
    let steps = ve_steps(options, n).into_iter().map(|step| Point::of_edm(step.told, step.sigma));
    steps.chain([Point::of_edm(0.0, 0.0)]).collect()
}

/// The variance-preserving equation (equation 33 of Song et al. 2021, arXiv:2011.13456): the network is told training timesteps.
pub(super) fn vp_points(options: &ScoreSdeVp, n: usize) -> Vec<Point> {
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
