//! The forward process: how training adds noise to pictures.

use super::betas::Betas;
use super::latents::Latents;

/// The normal distribution of a later state, given a known state `x`: the mean is `signal · x`, and each element has
/// the variance `variance`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    pub signal: f64,
    pub variance: f64,
}

impl Betas {
    /// `q(x_t | x_{t−1}) = N(√(1 − β_t) x_{t−1}, β_t)`: one step of the forward process (equation 2 of Ho et al. 2020,
    /// arXiv:2006.11239); `x_{−1}` is the picture. `None` unless t is in `[0, T)`.
    pub fn step(&self, t: usize) -> Option<Transition> {
        let beta = f64::from(*self.betas().get(t)?);
        Some(Transition { signal: libm::sqrt(1.0 - beta), variance: beta })
    }

    /// `q(x_t | x_0) = N(√ᾱ_t x_0, 1 − ᾱ_t)`: all steps up to `t` at once, where `x_0` is the picture (equation 4 of Ho
    /// et al. 2020). `None` unless t is in `[0, T)`.
    pub fn marginal(&self, t: usize) -> Option<Transition> {
        let alpha_cumprod = f64::from(*self.alphas_cumprod().get(t)?);
        Some(Transition { signal: libm::sqrt(alpha_cumprod), variance: 1.0 - alpha_cumprod })
    }
}

impl Transition {
    /// The transition that changes nothing.
    pub const IDENTITY: Transition = Transition { signal: 1.0, variance: 0.0 };

    /// The transition that applies `self` and then `next`.
    #[must_use]
    pub fn then(self, next: Transition) -> Transition {
        let kept = next.signal * next.signal;
        Transition { signal: self.signal * next.signal, variance: kept * self.variance + next.variance }
    }

    /// A sample of the distribution for the state `x` and unit `noise`, both `(B, C, h, w)`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn sample(&self, x: &Latents, noise: &Latents) -> Latents {
        Latents::combine(&[(self.signal, x), (libm::sqrt(self.variance), noise)])
    }
}
