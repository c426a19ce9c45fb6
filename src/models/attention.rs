//! Computes attention in parts, with a [`pause`] before each part, because the attention of a large map takes longer
//! than all other layers together.

use candle_core::{Result, Tensor};

use super::pause::pause;
use crate::kernels::{
    Kernels, Rows,
    attention::{Mask, Scores, queries},
};

/// The number of multiplications of one part. They take a fraction of a second on a few cores. Each part packs the keys
/// and values again, which takes far less time.
const PART_WORK: usize = 2_000_000_000;

/// Computes [`Kernels::attention`] without a mask, with a pause before each part: q (B, N, H·d), k and v (B, M, H·d) →
/// (B, N, H·d) for H heads. A query attends to all keys and depends on no other query, so the parts give the same bits
/// as the whole.
pub(super) async fn attention(kernels: Kernels, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    scored_attention(kernels, q, k, v, heads, Scores::default()).await
}

/// As [`attention`], with other scores: [`Kernels::scored_attention`] without a causal mask.
pub(super) async fn scored_attention(
    kernels: Kernels,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scores: Scores<'_>,
) -> Result<Tensor> {
    in_parts(kernels, [q, k, v], heads, scores, PART_WORK).await
}

/// Repeats each head of keys or values (B, M, H·d) for the `group` heads of queries that share it: (B, M, group·H·d).
pub(super) fn repeated(x: &Tensor, heads: usize, group: usize) -> Result<Tensor> {
    if group == 1 {
        return Ok(x.clone());
    }
    let (b, m, width) = x.dims3()?;
    let (each, shape) = ((b, m, heads, 1, width / heads), (b, m, heads, group, width / heads));
    x.reshape(each)?.broadcast_as(shape)?.contiguous()?.reshape((b, m, width * group))
}

async fn in_parts(
    kernels: Kernels,
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    scores: Scores<'_>,
    part_work: usize,
) -> Result<Tensor> {
    let (b, n, width) = q.dims3()?;
    if scores.mask != Mask::None {
        candle_core::bail!("a causal mask in parts");
    }
    // Reference kernels that promise a row the same bits in every batch need parts that do not depend on the batch.
    let rows = if kernels == Kernels::Reference(Rows::Apart) { 1 } else { b };
    let work_per_query = 2 * rows * k.dim(1)? * width;
    let at_a_time = queries();
    let queries = (part_work / work_per_query.max(1) / at_a_time).max(1) * at_a_time;
    if queries >= n {
        pause().await;
        return kernels.scored_attention(q, k, v, heads, scores);
    }
    let mut parts = Vec::with_capacity(n.div_ceil(queries));
    for first in (0..n).step_by(queries) {
        pause().await;
        let queries = queries.min(n - first);
        let part = q.narrow(1, first, queries)?.contiguous()?;
        let bias = scores.bias.map(|bias| bias.narrow(1, first, queries)?.contiguous()).transpose()?;
        parts.push(kernels.scored_attention(&part, k, v, heads, Scores { bias: bias.as_ref(), ..scores })?);
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
        fn parts_give_the_bits_of_the_whole(
            b in 1usize..3, n in 1usize..300, m in 1usize..60, heads in 1usize..4, d in 1usize..20, seed: u64,
            part_work in 1usize..200_000, biased: bool,
        ) {
            let mut random = Random::new(seed);
            let bias = random.normal(&[heads, n, m], 0.0);
            let keys = vec![m.div_ceil(2); b];
            let scores = Scores { bias: biased.then_some(&bias), keys: biased.then_some(&keys[..]), ..Scores::default() };
            let mut random = |n: usize| random.normal(&[b, n, heads * d], 0.0);
            let (q, k, v) = (random(n), random(m), random(m));
            let bits = |x: Tensor| -> Vec<u32> {
                x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            let kernels = Kernels::default();
            let whole = kernels.scored_attention(&q, &k, &v, heads, scores).unwrap();
            prop_assert_eq!(bits(in_parts(kernels, [&q, &k, &v], heads, scores, part_work).to_end().unwrap()), bits(whole));

            // The parts of reference kernels can differ from the whole, but not from the parts of the same row alone.
            let of = |x: &Tensor| x.narrow(0, b - 1, 1).unwrap();
            let parts = |of: [&Tensor; 3]| {
                in_parts(Kernels::REFERENCE, of, heads, Scores::default(), part_work).to_end().unwrap()
            };
            prop_assert_eq!(bits(parts([&of(&q), &of(&k), &of(&v)])), bits(of(&parts([&q, &k, &v]))));
        }
    }
}
