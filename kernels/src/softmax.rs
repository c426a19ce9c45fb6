//! Online softmax: scores arrive in groups (Milakov and Gimelshein 2018, arXiv:1805.02867).

use super::{
    exp::exp,
    lanes::{largest, replace_and_sum},
};

/// The largest score of a line so far, and the sum of e^(score − largest) over the line so far.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    largest: f32,
    sum: f32,
}

impl Softmax {
    pub const EMPTY: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Replaces each score s by e^(s − largest) and returns the factor by which the caller multiplies the results of
    /// all earlier groups of scores.
    #[inline(always)]
    pub fn extend(&mut self, scores: &mut [f32]) -> f32 {
        let largest = self.largest.max(largest(scores));
        let rescale = exp(self.largest - largest);
        let sum = replace_and_sum(scores, |score| exp(score - largest));
        *self = Self { largest, sum: self.sum * rescale + sum };
        rescale
    }

    /// After the last group of scores, the caller multiplies all results by this factor. Then the weights add up to 1.
    #[inline(always)]
    pub fn scale(self) -> f32 {
        1.0 / self.sum
    }
}
