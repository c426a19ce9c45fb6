//! Network outputs for a step of ancestral sampling, and the variance of the step.

use super::latents::Latents;

/// The outputs of a network for one step; all latents are `(B, C, h, w)`.
#[derive(Debug, Clone)]
pub struct StepPosterior {
    /// The prediction, as [`Denoise::predict`](super::Denoise::predict) returns it.
    pub prediction: Latents,
    /// For `learned_range`: the position of the variance's logarithm between `ln β̃` (position −1) and `ln β` (position
    /// 1). `β̃` is the variance of the posterior, `β` the variance of the forward step (equation 15 of Nichol and
    /// Dhariwal 2021, arXiv:2102.09672, in the form of their program).
    pub variance: Option<Latents>,
    /// The gradient `s ∇ ln p(y | x)` of a classifier. This gradient, multiplied by the variance, shifts the mean of
    /// the step (algorithm 1 of Dhariwal and Nichol 2021, arXiv:2105.05233).
    pub gradient: Option<Latents>,
}

impl StepPosterior {
    /// A prediction without variance and gradient.
    pub fn plain(prediction: Latents) -> StepPosterior {
        StepPosterior { prediction, variance: None, gradient: None }
    }
}

/// The variance of a step: one number for all elements of the state, or one number for each element.
pub(super) enum Variance {
    One(f64),
    Each(Latents),
}

impl Variance {
    /// `power(variance)` times `x`, as a term of a linear combination: a factor and latents.
    pub(super) fn times(&self, x: Latents, power: fn(f64) -> f64) -> (f64, Latents) {
        match self {
            Variance::One(variance) => (power(*variance), x),
            Variance::Each(variance) => (1.0, variance.zip(&x, |variance, x| power(variance) * x)),
        }
    }
}
