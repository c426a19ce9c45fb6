//! `σ/α` of the training timesteps, and ways to choose other noise levels.

use super::beta_distribution;

/// How levels are respaced: diffusers' `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas` and
/// `use_lu_lambdas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Respacing {
    /// Equation 5 of Karras et al. (2022), arXiv:2206.00364, with ρ = 7.
    Karras,
    /// Evenly spaced in `ln σ`.
    Exponential,
    /// Quantiles of Beta(0.6, 0.6), arXiv:2407.12173.
    Beta,
    /// Evenly spaced in λ (Lu et al. 2022, arXiv:2206.00927): the formula of `Exponential`, but regardless of
    /// [`SigmaRange`], and with timesteps that are rounded differently.
    Lu,
}

impl Respacing {
    /// `n` levels from `max` down to `min`.
    pub(super) fn levels(self, max: f64, min: f64, n: usize) -> Vec<f64> {
        let ramp = (0..n).map(|i| if n > 1 { i as f64 / (n - 1) as f64 } else { 0.0 });
        let level: Box<dyn Fn(f64) -> f64> = match self {
            Respacing::Karras => {
                let rho = 7.0;
                let (from, to) = (libm::pow(max, 1.0 / rho), libm::pow(min, 1.0 / rho));
                Box::new(move |ramp| libm::pow(from + ramp * (to - from), rho))
            }
            Respacing::Exponential | Respacing::Lu => {
                let (from, to) = (libm::log(max), libm::log(min));
                Box::new(move |ramp| libm::exp(from + ramp * (to - from)))
            }
            Respacing::Beta => Box::new(move |ramp| min + beta_distribution::quantile(1.0 - ramp, 0.6) * (max - min)),
        };
        ramp.map(level).collect()
    }
}

/// diffusers' `sigma_min` and `sigma_max`: if set, the smallest and the largest respaced level, instead of the levels
/// of the schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct SigmaRange {
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
}

impl SigmaRange {
    /// `n` levels from the largest level of the range to the smallest; if the range lacks one of the two, `max` or
    /// `min` replaces it. Lu levels ignore the range.
    pub(super) fn levels(self, respacing: Respacing, max: f64, min: f64, n: usize) -> Vec<f64> {
        match respacing {
            Respacing::Lu => respacing.levels(max, min, n),
            _ => respacing.levels(self.max.unwrap_or(max), self.min.unwrap_or(min), n),
        }
    }
}

/// `σ/α` of every training timestep in rising order, rounded as torch rounds it.
pub(super) struct SigmaTable {
    sigmas: Vec<f32>,
    logs: Vec<f32>,
}

impl SigmaTable {
    pub(super) fn new(alphas_cumprod: &[f32]) -> SigmaTable {
        let sigmas: Vec<f32> = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        let logs = sigmas.iter().map(|sigma| libm::log(f64::from(*sigma)) as f32).collect();
        SigmaTable { sigmas, logs }
    }

    /// The level at timestep `t`: linear between training timesteps, and clamped at the ends.
    pub(super) fn at(&self, t: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let t = t.clamp(0.0, last as f64);
        let below = (t as usize).min(last);
        let above = (below + 1).min(last);
        let (low, high) = (f64::from(self.sigmas[below]), f64::from(self.sigmas[above]));
        low + (t - below as f64) * (high - low)
    }

    pub(super) fn min(&self) -> f64 {
        self.at(0.0)
    }

    pub(super) fn max(&self) -> f64 {
        self.at(self.sigmas.len() as f64)
    }

    /// The timestep whose level is `sigma`, interpolated linearly in `ln σ`.
    pub(super) fn timestep_of(&self, sigma: f64) -> f64 {
        let log = libm::log(sigma.max(1e-10));
        let not_above = self.logs.partition_point(|l| f64::from(*l) <= log);
        let below = not_above.saturating_sub(1).min(self.logs.len().saturating_sub(2));
        let above = (below + 1).min(self.logs.len() - 1);
        let (low, high) = (f64::from(self.logs[below]), f64::from(self.logs[above]));
        let w = if high > low { ((log - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
        (1.0 - w) * below as f64 + w * above as f64
    }

    /// The number of training timesteps with `λ = ln α − ln σ` of at least `min`.
    pub(super) fn with_lambda_from(alphas_cumprod: &[f32], min: f64) -> usize {
        let lambda = |a: &f32| libm::logf(a.sqrt()) - libm::logf((1.0 - a).sqrt());
        alphas_cumprod.partition_point(|a| f64::from(lambda(a)) >= min)
    }
}
