use candle_core::{CpuStorage, InplaceOp1, Layout, Result};

use super::{exp::exp, storage::floats_mut};

/// Softmax over the last dimension of (N, M) scores times `scale`, in place, on the calling thread.
///
/// With `causal_from` = i the first row may see the keys 0..=i, the next one more, and so on.
pub(super) struct Softmax {
    pub scale: f32,
    pub causal_from: Option<usize>,
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax_over"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let keys = layout.dims().last().copied().unwrap_or(0).max(1);
        for (i, scores) in floats_mut(storage, layout)?
            .chunks_exact_mut(keys)
            .enumerate()
        {
            let seen = self
                .causal_from
                .map_or(keys, |first| keys.min(first + i + 1));
            let (scores, hidden) = scores.split_at_mut(seen);
            hidden.fill(0.0);
            softmax(scores, self.scale);
        }
        Ok(())
    }
}

/// Eight partial sums in a fixed order: what a vector unit can do, and the same on every one.
const LANES: usize = 8;

fn softmax(scores: &mut [f32], scale: f32) {
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
