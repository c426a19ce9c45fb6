//! Softmax over scores that come in portions (Milakov and Gimelshein 2018, arXiv:1805.02867).

use super::exp::exp;

/// Sixteen partial sums in a fixed order: what a wide vector unit can do, and the same on every one.
const LANES: usize = 16;

/// The largest score of a line so far, and the sum of e^(score − largest).
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    largest: f32,
    sum: f32,
}

impl Softmax {
    pub const EMPTY: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Replaces the scores s by e^(s − largest). What was made of earlier portions must be multiplied by the answer.
    #[inline(always)]
    pub fn portion(&mut self, scores: &mut [f32]) -> f32 {
        let largest = self.largest.max(largest(scores));
        let rescale = exp(self.largest - largest);
        let mut sums = [0f32; LANES];
        let (chunks, rest) = scores.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for (sum, score) in sums.iter_mut().zip(chunk) {
                *score = exp(*score - largest);
                *sum += *score;
            }
        }
        for (sum, score) in sums.iter_mut().zip(rest) {
            *score = exp(*score - largest);
            *sum += *score;
        }
        *self = Self { largest, sum: self.sum * rescale + sums.iter().sum::<f32>() };
        rescale
    }

    /// What everything is multiplied by in the end, so that the weights add up to one.
    #[inline(always)]
    pub fn scale(self) -> f32 {
        1.0 / self.sum
    }
}

/// The largest does not depend on the order, so this takes more lanes than the sums.
#[inline(always)]
fn largest(scores: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 2 * LANES];
    let (chunks, rest) = scores.as_chunks::<{ 2 * LANES }>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, score)| *lane = larger(*lane, *score));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, score)| *lane = larger(*lane, *score));
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}
