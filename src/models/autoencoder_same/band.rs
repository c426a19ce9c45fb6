//! Attention of each token to the tokens around it.

use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        Kernels,
        attention::{Scores, queries},
    },
    models::{attention::attention, pause::pause},
};

/// The bias of the scores of hidden keys. Their share is below the smallest number of float32 that is not denormal.
const HIDDEN: f32 = -1e9;

/// As [`attention`] of a sequence to itself, in which a token attends to the tokens at most `window` places away: q, k,
/// v (B, N, H·d) → (B, N, H·d). Computes parts of the sequence with the keys around them, so that the scores take no
/// memory that grows with the square of N. The parts depend only on N, `window` and the kind of processor.
pub(super) async fn band_attention(
    kernels: Kernels,
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    window: usize,
) -> Result<Tensor> {
    let n = q.dim(1)?;
    if window + 1 >= n {
        return attention(kernels, q, k, v, heads).await;
    }
    let most = (2 * window).max(1).next_multiple_of(queries());
    let mut parts = Vec::with_capacity(n.div_ceil(most));
    for first in (0..n).step_by(most) {
        pause().await;
        let (start, end) = (first.saturating_sub(window), (first + most + window).min(n));
        let (queries, keys) = (most.min(n - first), end - start);
        let bias = |at: usize| match (first + at / keys % queries).abs_diff(start + at % keys) > window {
            true => HIDDEN,
            false => 0.0,
        };
        let bias = (0..heads * queries * keys).map(bias).collect();
        let bias = Tensor::from_vec(bias, (heads, queries, keys), q.device())?;
        let part = |x: &Tensor, first, count| x.narrow(1, first, count)?.contiguous();
        let (q, k, v) = (part(q, first, queries)?, part(k, start, keys)?, part(v, start, keys)?);
        parts.push(kernels.scored_attention(&q, &k, &v, heads, Scores { bias: Some(&bias), ..Scores::default() })?);
    }
    Tensor::cat(&parts, 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{kernels::random::Random, models::pause::ToEnd};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_band_is_attention_with_a_mask(
            b in 1usize..3, n in 1usize..260, heads in 1usize..3, d in 1usize..9, window in 0usize..70, seed: u64,
        ) {
            let mut random = Random::new(seed);
            let mut random = || random.normal(&[b, n, heads * d], 0.0);
            let (q, k, v) = (random(), random(), random());
            let mask = (0..heads * n * n).map(|at| {
                if (at / n % n).abs_diff(at % n) > window { f32::NEG_INFINITY } else { 0.0 }
            });
            let mask = Tensor::from_vec(mask.collect(), (heads, n, n), q.device()).unwrap();
            let scores = Scores { bias: Some(&mask), ..Scores::default() };
            let whole = Kernels::REFERENCE.scored_attention(&q, &k, &v, heads, scores).unwrap();
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let made = band_attention(kernels, [&q, &k, &v], heads, window).to_end().unwrap();
                let error = (&made - &whole).unwrap().abs().unwrap().flatten_all().unwrap();
                let error = error.max(0).unwrap().to_scalar::<f32>().unwrap();
                prop_assert!(error < 1e-5, "{error:e}");
            }
        }
    }
}
