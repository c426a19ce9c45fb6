//! What a network says of a step of ancestral sampling.

use super::latents::Latents;

/// The answer of a network, all of it `(B, C, h, w)`.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// What [`Denoise::predict`](super::Denoise::predict) answers.
    pub prediction: Latents,
    /// For a learned range: how the logarithm of the variance lies between that of `β̃`, at −1, and that of `β`, at 1
    /// (equation 15 of Nichol and Dhariwal 2021, arXiv:2102.09672, in the form of their program).
    pub variance: Option<Latents>,
    /// `s ∇ ln p(y | x)` of a classifier, by which the mean is shifted, in units of the variance (algorithm 1 of Dhariwal and
    /// Nichol 2021, arXiv:2105.05233).
    pub pull: Option<Latents>,
}

impl Posterior {
    /// A prediction and nothing else.
    pub fn plain(prediction: Latents) -> Posterior {
        Posterior { prediction, variance: None, pull: None }
    }
}

/// The variance of a step: one number, or one for each of the state's.
pub(super) enum Variance {
    One(f64),
    Each(Latents),
}

impl Variance {
    /// A term of a sum: `power` of the variance times `x`.
    pub(super) fn times(&self, x: Latents, power: fn(f64) -> f64) -> (f64, Latents) {
        match self {
            Variance::One(variance) => (power(*variance), x),
            Variance::Each(variance) => (1.0, variance.zip(&x, |variance, x| power(variance) * x)),
        }
    }
}
