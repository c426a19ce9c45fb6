//! Computes attention in parts, with a [`pause`] before each part, because the attention of a large map takes longer
//! than all other layers together.

use candle_core::{Result, Tensor};

use super::pause::pause;
use crate::kernels::{
    Kernels, Rows,
    attention::{Mask, QUERIES},
};

/// The number of multiplications of one part. They take a fraction of a second on a few cores. Each part packs the keys
/// and values again, which takes far less time.
const PART_WORK: usize = 2_000_000_000;

/// Computes [`Kernels::attention`] without a mask, with a pause before each part: q (B, N, H·d), k and v (B, M, H·d) →
/// (B, N, H·d) for H heads. A query attends to all keys and depends on no other query, so the parts give the same bits
/// as the whole.
pub(super) async fn attention(kernels: Kernels, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    in_parts(kernels, q, k, v, heads, PART_WORK).await
}

async fn in_parts(
    kernels: Kernels,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    part_work: usize,
) -> Result<Tensor> {
    let (b, n, width) = q.dims3()?;
    // Reference kernels that promise a row the same bits in every batch need parts that do not depend on the batch.
    let rows = if kernels == Kernels::Reference(Rows::Apart) { 1 } else { b };
    let work_per_query = 2 * rows * k.dim(1)? * width;
    let queries = (part_work / work_per_query.max(1) / QUERIES).max(1) * QUERIES;
    if queries >= n {
        pause().await;
        return kernels.attention(q, k, v, heads, Mask::None);
    }
    let mut parts = Vec::with_capacity(n.div_ceil(queries));
    for first in (0..n).step_by(queries) {
        pause().await;
        let part = q.narrow(1, first, queries.min(n - first))?.contiguous()?;
        parts.push(kernels.attention(&part, k, v, heads, Mask::None)?);
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
            part_work in 1usize..200_000,
        ) {
            let mut random = Random::new(seed);
            let mut random = |n: usize| random.normal(&[b, n, heads * d], 0.0);
            let (q, k, v) = (random(n), random(m), random(m));
            let bits = |x: Tensor| -> Vec<u32> {
                x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            let kernels = Kernels::default();
            let whole = kernels.attention(&q, &k, &v, heads, Mask::None).unwrap();
            prop_assert_eq!(bits(in_parts(kernels, &q, &k, &v, heads, part_work).to_end().unwrap()), bits(whole));

            // The parts of reference kernels can differ from the whole, but not from the parts of the same row alone.
            let of = |x: &Tensor| x.narrow(0, b - 1, 1).unwrap();
            let parts = |q: &Tensor, k: &Tensor, v: &Tensor| {
                in_parts(Kernels::REFERENCE, q, k, v, heads, part_work).to_end().unwrap()
            };
            prop_assert_eq!(bits(parts(&of(&q), &of(&k), &of(&v))), bits(of(&parts(&q, &k, &v))));
        }
    }
}
