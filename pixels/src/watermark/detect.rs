//! Candidates for a watermark in a picture of the size that it had when it was marked.

use super::{
    fold::{Coefficients, Shift},
    layout::Layout,
    plane::Plane,
};

/// A shift of the tile for which the markers fit, with the code bits.
pub(super) struct Candidate {
    pub shift: Shift,
    /// A positive value means 0, a negative value means 1.
    pub soft: Vec<f32>,
}

/// The lowest score of a candidate. The best of 5,184 shifts of a random picture reaches this score in one of 90
/// pictures.
const MIN_SCORE: f32 = 4.6;

/// At most one candidate for each contrast.
pub(super) fn candidates(plane: &Plane, gains: &[f32], layout: &Layout) -> Vec<Candidate> {
    let coefficients = Coefficients::of(plane);
    let candidate = |gain: &f32| {
        let fold = coefficients.fold(*gain);
        let shift = fold.best_shift(layout);
        (shift.score >= MIN_SCORE).then(|| Candidate { shift, soft: fold.soft_bits(layout, shift) })
    };
    gains.iter().filter_map(candidate).collect()
}
