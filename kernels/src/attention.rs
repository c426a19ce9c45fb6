//! Scaled dot-product attention over several heads.

mod head;

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    bf16::Way,
    block::Block,
    storage::{Operand, blank, floats, made},
};
use head::{Head, Queries, Scratch};

/// Which keys a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All keys.
    None,
    /// Keys at the query's own position and before.
    Causal,
}

/// How the products of queries and keys become scores.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a> {
    pub mask: Mask,
    /// The factor of q·kᵀ; `None` means 1/√d.
    pub scale: Option<f32>,
    /// Added to the scaled products of each head: (H, N, M), the same for all rows of the batch.
    pub bias: Option<&'a Tensor>,
    /// The number of keys of each row of the batch, at least 1. The keys after them are padding, and no query attends
    /// to them. `None` means that there is no padding.
    pub keys: Option<&'a [usize]>,
}

impl Default for Scores<'_> {
    fn default() -> Self {
        Self { mask: Mask::None, scale: None, bias: None, keys: None }
    }
}

impl Scores<'_> {
    fn scale(&self, d: usize) -> f32 {
        self.scale.unwrap_or_else(|| 1.0 / (d as f32).sqrt())
    }

    /// The number of keys of a row that has `m` keys with padding.
    fn keys_of(&self, row: usize, m: usize) -> usize {
        self.keys.map_or(m, |keys| keys[row])
    }

    fn check(&self, heads: usize, [batch, n, m]: [usize; 3]) -> Result<()> {
        if self.keys.is_some_and(|keys| keys.len() != batch || !keys.iter().all(|keys| (1..=m).contains(keys))) {
            candle_core::bail!("attention: {:?} of {m} keys in {batch} rows", self.keys);
        }
        match self.bias {
            Some(bias) if bias.dims() != [heads, n, m] => {
                candle_core::bail!("attention: a bias {:?} for {heads} heads, {n} queries, {m} keys", bias.dims())
            }
            _ => Ok(()),
        }
    }
}

impl Kernels {
    /// softmax(q·kᵀ/√d)·v for each of the H heads: q (B, N, H·d), k and v (B, M, H·d) → (B, N, H·d).
    pub fn attention(self, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
        self.scored_attention(q, k, v, heads, Scores { mask, ..Scores::default() })
    }

    /// As [`Kernels::attention`], with other scores. The bits of a row do not depend on its padding.
    pub fn scored_attention(
        self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        heads: usize,
        scores: Scores<'_>,
    ) -> Result<Tensor> {
        scores.check(heads, [q.dim(0)?, q.dim(1)?, k.dim(1)?])?;
        match self {
            Kernels::Packed(_) => q.apply_op3_no_bwd(k, v, &Attention { heads, scores }),
            // With padding, the rows are computed one by one.
            Kernels::Reference(_) if scores.keys.is_some() => composite(q, k, v, heads, scores),
            Kernels::Reference(rows) => rows.each([q, k, v], |[q, k, v]| composite(&q, &k, &v, heads, scores)),
        }
    }
}

struct Attention<'a> {
    heads: usize,
    scores: Scores<'a>,
}

/// The number of queries that a thread processes at a time. The scores of these queries for 256 keys fit into the L2
/// cache. The number is a multiple of the 12 lines of a tile, or of the 32 lines of a pair of tiles of the matrix unit,
/// so that all tiles are full.
pub fn queries() -> usize {
    queries_of(Way::current())
}

fn queries_of(way: Way) -> usize {
    if way == Way::Wide { 48 } else { 64 }
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, n, width) = q_layout.shape().dims3()?;
        let (_, m, _) = k_layout.shape().dims3()?;
        let keys = Shape::from((batch, m, width));
        if [k_layout.shape(), v_layout.shape()] != [&keys, &keys] || width % self.heads != 0 || batch * n * m == 0 {
            let shapes = (q_layout.shape(), k_layout.shape(), v_layout.shape());
            candle_core::bail!("attention: {shapes:?} in {} heads", self.heads);
        }
        let (q, k, v) = (floats(q, q_layout)?, floats(k, k_layout)?, floats(v, v_layout)?);
        let (heads, d, scores) = (self.heads, width / self.heads, self.scores);
        let bias = scores.bias.map(Operand::of);
        let bias = bias.as_ref().map(Operand::floats).transpose()?;
        let way = Way::current();
        let pack = |i: usize| {
            let from = i / heads * m * width + i % heads * d;
            Head::pack(way, &k[from..], &v[from..], width, d, scores.keys_of(i / heads, m))
        };
        let packed: Vec<Head> = (0..batch * heads).into_par_iter().map(pack).collect();
        let mut out = blank(q.len());
        let whole = Block::new(&mut out, width);
        let at_a_time = queries_of(way);
        let blocks = n.div_ceil(at_a_time);
        (0..batch * heads * blocks).into_par_iter().for_each_init(Scratch::default, |scratch, i| {
            let (b, h, block) = (i / blocks / heads, i / blocks % heads, i % blocks);
            let queries = block * at_a_time..n.min((block + 1) * at_a_time);
            let (first, last) = (b * n + queries.start, b * n + queries.end);
            // SAFETY: any two blocks have different lines or different columns.
            let mut out = unsafe { whole.part(first..last, h * d..(h + 1) * d) };
            let queries = Queries {
                q: &q[first * width + h * d..],
                width,
                scale: scores.scale(d),
                causal_from: (scores.mask == Mask::Causal).then_some(queries.start),
                bias: bias.map(|bias| (&bias[(h * n + queries.start) * m..], m)),
            };
            packed[b * heads + h].attend(&queries, scratch, &mut out);
        });
        made(out, q_layout.shape().clone())
    }
}

/// Attention by candle's operations. Queries and keys are converted to float32 before their product, and the softmax is
/// computed in float32, because scores can exceed 65504, the largest number of float16.
fn composite(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, scores: Scores<'_>) -> Result<Tensor> {
    let (batch, n, width) = q.dims3()?;
    let (d, m) = (width / heads, k.dim(1)?);
    let split = |x: &Tensor| x.reshape((x.dim(0)?, (), heads, d))?.transpose(1, 2)?.contiguous();
    // Scores can exceed float16 (`upcast_attention` in the configurations of Stable Diffusion 2).
    let float32 = |x: &Tensor| x.to_dtype(DType::F32);
    let scaled = (float32(q)? * f64::from(scores.scale(d)))?;
    let hidden = (scores.mask == Mask::Causal).then(|| -> Result<Tensor> {
        let hidden: Vec<f32> = (0..n * m).map(|at| if at % m > at / m { f32::NEG_INFINITY } else { 0.0 }).collect();
        Tensor::from_vec(hidden, (n, m), q.device())
    });
    let hidden = hidden.transpose()?;
    let rows = |q: &Tensor, k: &Tensor, v: &Tensor, keys: usize| -> Result<Tensor> {
        let (q, k, v) = (split(q)?, split(&float32(&k.narrow(1, 0, keys)?)?)?, split(&v.narrow(1, 0, keys)?)?);
        let mut products = q.matmul(&k.t()?)?;
        if let Some(bias) = scores.bias {
            products = products.broadcast_add(&float32(bias)?.narrow(2, 0, keys)?)?;
        }
        if let Some(hidden) = &hidden {
            products = products.broadcast_add(&hidden.narrow(1, 0, keys)?)?;
        }
        // `softmax_last_dim` has no gradient. The largest score is subtracted only to prevent overflow, so it is
        // excluded from the gradient.
        let products = products.broadcast_sub(&products.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let weights = products.broadcast_div(&products.sum_keepdim(D::Minus1)?)?;
        weights.to_dtype(v.dtype())?.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((q.dim(0)?, n, width))
    };
    match scores.keys {
        None => rows(&scaled, k, v, m),
        // Row by row, so that the products of a row have the same shape whatever the padding is.
        Some(keys) => {
            let row = |i: usize| rows(&scaled.narrow(0, i, 1)?, &k.narrow(0, i, 1)?, &v.narrow(0, i, 1)?, keys[i]);
            Tensor::cat(&(0..batch).map(row).collect::<Result<Vec<_>>>()?, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    /// Attention by its definition, in double precision.
    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, scores: Scores<'_>) -> Vec<f64> {
        let values = |x: &Tensor| x.to_vec3::<f32>().unwrap();
        let (q, k, v) = (values(q), values(k), values(v));
        let bias = scores.bias.map(values);
        let d = q[0][0].len() / heads;
        let scale = scores.scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
        let mut out = Vec::new();
        for b in 0..q.len() {
            for (i, query) in q[b].iter().enumerate() {
                for h in 0..heads {
                    let keys = scores.keys.map_or(k[b].len(), |keys| keys[b]);
                    let seen = if scores.mask == Mask::Causal { keys.min(i + 1) } else { keys };
                    let score = |(j, key): (usize, &Vec<f32>)| {
                        let dot: f64 = (h * d..(h + 1) * d).map(|c| f64::from(query[c]) * f64::from(key[c])).sum();
                        (dot * scale + bias.as_ref().map_or(0.0, |bias| f64::from(bias[h][i][j]))).exp()
                    };
                    let weights: Vec<f64> = k[b][..seen].iter().enumerate().map(score).collect();
                    let sum: f64 = weights.iter().sum();
                    let value =
                        |c: usize| weights.iter().zip(&v[b]).map(|(w, v)| w / sum * f64::from(v[c])).sum::<f64>();
                    out.extend((h * d..(h + 1) * d).map(value));
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn like_the_definition(
            b in 1usize..3,
            n in prop_oneof![1usize..40, 90usize..100],
            m in prop_oneof![1usize..40, 250usize..600],
            heads in 1usize..4,
            d in 1usize..20,
            [causal, unscaled, biased, padded] in any::<[bool; 4]>(),
            seed: u64,
        ) {
            let m = if causal { n } else { m };
            let mut random = Random::new(seed);
            let bias = random.normal(&[heads, n, m], 0.0);
            let mut random = |n: usize| (random.normal(&[b, n, heads * d], 0.0) * 1.5).unwrap();
            let (q, k, v) = (random(n), random(m), random(m));
            let keys: Vec<usize> = (0..b).map(|row| 1 + (seed as usize >> (8 * row)) % m).collect();
            let scores = Scores {
                mask: if causal { Mask::Causal } else { Mask::None },
                scale: unscaled.then_some(0.3),
                bias: biased.then_some(&bias),
                keys: padded.then_some(&keys[..]),
            };
            let expected = naive(&q, &k, &v, heads, scores);
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let made = kernels.scored_attention(&q, &k, &v, heads, scores).unwrap();
                for (made, expected) in values(&made).iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < 2e-5, "{} {}", made, expected);
                }
                // Without its padding, the last row has the same bits.
                let only = [if padded { keys[b - 1] } else { m }];
                let keys = only[0];
                let of = |x: &Tensor, length| x.narrow(0, b - 1, 1).unwrap().narrow(1, 0, length).unwrap();
                let (k, v) = (of(&k, keys).contiguous().unwrap(), of(&v, keys).contiguous().unwrap());
                let bias = bias.narrow(2, 0, keys).unwrap().contiguous().unwrap();
                let alone = Scores { bias: biased.then_some(&bias), keys: padded.then_some(&only[..]), ..scores };
                let alone = kernels.scored_attention(&of(&q, n), &k, &v, heads, alone).unwrap();
                prop_assert_eq!(values(&alone), values(&of(&made, n)));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let zeros = |shape: [usize; 3]| Tensor::zeros(&shape, DType::F32, &candle_core::Device::Cpu).unwrap();
        let (q, bias) = (zeros([2, 3, 4]), zeros([2, 3, 2]));
        for kernels in [Kernels::default(), Kernels::REFERENCE] {
            let attend = |scores| kernels.scored_attention(&q, &q, &q, 2, scores);
            assert!(attend(Scores::default()).is_ok());
            for keys in [&[1, 0][..], &[1, 4], &[3]] {
                assert!(attend(Scores { keys: Some(keys), ..Scores::default() }).is_err());
            }
            assert!(attend(Scores { bias: Some(&bias), ..Scores::default() }).is_err());
        }
    }
}
