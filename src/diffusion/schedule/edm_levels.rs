//! Noise levels of models that were trained on states `x0 + σ ε` (EDM).

use super::dpm_levels::Last;
use super::rounded;
use crate::diffusion::point::Point;
use crate::diffusion::scheduler_config::{EdmLevels, FinalSigma};

/// The points of `n` levels from `sigma_max` to `sigma_min` and of the end, and the `init_noise_sigma`. The end is
/// zero, or the level that `last` names if the configuration ends at `sigma_min`.
pub(in crate::diffusion) fn edm_points(levels: &EdmLevels, n: usize, last: Last) -> (Vec<Point>, f64) {
    let EdmLevels { sigma_min, sigma_max, rho, exponential, end } = *levels;
    let ramp = |i: usize| if n > 1 { i as f64 / (n - 1) as f64 } else { 0.0 };
    let sigma = |i: usize| {
        if exponential {
            // Counts from the smallest level, so that a run of one step uses `sigma_min`.
            let (from, to) = (libm::log(sigma_min), libm::log(sigma_max));
            rounded(libm::exp(from + ramp(n - 1 - i) * (to - from)))
        } else {
            rounded(of_rho(sigma_max, sigma_min, rho, ramp(i)))
        }
    };
    let mut sigmas: Vec<f64> = (0..n).map(sigma).collect();
    sigmas.push(match (end, last) {
        (FinalSigma::Zero, _) => 0.0,
        (FinalSigma::SigmaMin, Last::SigmaMin) => rounded(sigma_min).min(sigmas[n - 1]),
        (FinalSigma::SigmaMin, _) => sigmas[n - 1],
    });
    let point = |(i, sigma): (usize, f64)| {
        let t = if i < n { rounded(0.25 * libm::log(sigma)) } else { 0.0 };
        Point::of_edm(t, sigma)
    };
    let init_noise_sigma = libm::sqrt(sigma_max * sigma_max + 1.0);
    (sigmas.into_iter().enumerate().map(point).collect(), init_noise_sigma)
}

/// Equation 5 of Karras et al. (2022), arXiv:2206.00364: the level after the fraction `share`, in [0, 1], of the way
/// from `max` to `min`.
pub(in crate::diffusion) fn of_rho(max: f64, min: f64, rho: f64, share: f64) -> f64 {
    let (from, to) = (libm::pow(max, 1.0 / rho), libm::pow(min, 1.0 / rho));
    libm::pow(from + share * (to - from), rho)
}
