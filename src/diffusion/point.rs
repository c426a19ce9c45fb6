//! A noise level of a schedule, with its timestep.

/// The noise level `x = α x0 + σ ε` and the timestep that the network receives for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The timestep for the network: a training timestep, whole or fractional, or another function of the level, such
    /// as `0.25 ln(σ/α)` for networks that were trained on continuous noise levels.
    pub t: f64,
    /// α, the scale of the signal, in `[0, 1]`.
    pub alpha: f64,
    /// σ, the scale of the noise. Variance-preserving levels have `α² + σ² = 1`, flows have `α + σ = 1`; for EDM, α is
    /// 1 and σ has no bound.
    pub sigma: f64,
}

impl Point {
    /// The level whose mean signal power is `alpha_cumprod` (ᾱ of Ho et al. 2020).
    pub(super) fn of_alpha_cumprod(t: f64, alpha_cumprod: f32) -> Point {
        let a = f64::from(alpha_cumprod);
        Point { t, alpha: libm::sqrt(a), sigma: libm::sqrt(1.0 - a) }
    }

    /// The variance-preserving level with this [`noise`](Point::noise).
    pub(super) fn of_noise(t: f64, noise: f64) -> Point {
        let alpha = 1.0 / libm::sqrt(noise * noise + 1.0);
        Point { t, alpha, sigma: noise * alpha }
    }

    /// The level `x = (1 − σ) x0 + σ ε` of a flow.
    pub(super) fn of_flow(t: f64, sigma: f64) -> Point {
        Point { t, alpha: 1.0 - sigma, sigma }
    }

    /// The level `x = x0 + σ ε`, for networks that were trained on such states.
    pub(super) fn of_edm(t: f64, sigma: f64) -> Point {
        Point { t, alpha: 1.0, sigma }
    }

    /// `σ/α`: the standard deviation of the noise in `x/α`, the σ of Karras et al. (2022) and of diffusers' `sigmas`.
    pub fn noise(&self) -> f64 {
        self.sigma / self.alpha
    }

    /// Half the logarithm of the signal-to-noise ratio, `ln α − ln σ` (λ of Lu et al. 2022); infinite where σ is 0.
    pub(super) fn lambda(&self) -> f64 {
        libm::log(self.alpha) - libm::log(self.sigma)
    }
}
