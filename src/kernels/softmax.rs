use super::exp::exp;

/// Eight partial sums in a fixed order: what a vector unit can do, and the same on every one.
const LANES: usize = 8;

/// Softmax of `scale` times the scores, in place; the scale is positive.
pub(super) fn softmax(scores: &mut [f32], scale: f32) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in scores.chunks(LANES) {
        largest
            .iter_mut()
            .zip(chunk)
            .for_each(|(l, s)| *l = if *s > *l { *s } else { *l });
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; LANES];
    let mut chunks = scores.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp((*score - largest) * scale);
            *sum += *score;
        }
    }
    for (sum, score) in sums.iter_mut().zip(chunks.into_remainder()) {
        *score = exp((*score - largest) * scale);
        *sum += *score;
    }
    let inverse = 1.0 / sums.iter().sum::<f32>();
    scores.iter_mut().for_each(|s| *s *= inverse);
}
