//! Scaled dot-product attention over several heads.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    block::Block,
    gemm::{Panels, Product, WIDTH},
    simd::vectorized,
    softmax::Softmax,
    storage::{at_least, blank, floats, made},
};

/// Which keys a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All keys.
    None,
    /// Keys at the query's own position and before.
    Causal,
}

impl Kernels {
    /// softmax(q·kᵀ/√d)·v for each of the H heads: q (B, N, H·d), k and v (B, M, H·d) → (B, N, H·d).
    pub fn attention(self, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => q.apply_op3_no_bwd(k, v, &Attention { heads, mask }),
            Kernels::Reference(rows) => rows.each([q, k, v], |[q, k, v]| composite(&q, &k, &v, heads, mask)),
        }
    }
}

struct Attention {
    heads: usize,
    mask: Mask,
}

/// The queries that a thread processes at a time. The scores of `QUERIES` queries and `KEYS` keys fit into the L2
/// cache.
pub const QUERIES: usize = 48;
/// The keys that a thread processes at a time.
const KEYS: usize = 256;

impl CustomOp3 for Attention {
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
        let (heads, d) = (self.heads, width / self.heads);
        let pack = |i: usize| {
            let from = i / heads * m * width + i % heads * d;
            let (k, v) = (&k[from..], &v[from..]);
            Head { keys: Panels::pack(k, d, m, 1, width), values: Panels::pack(v, m, d, width, 1) }
        };
        let packed: Vec<Head> = (0..batch * heads).into_par_iter().map(pack).collect();
        let mut out = blank(q.len());
        let whole = Block::new(&mut out, width);
        let blocks = n.div_ceil(QUERIES);
        (0..batch * heads * blocks).into_par_iter().for_each_init(Scratch::default, |scratch, i| {
            let (b, h, block) = (i / blocks / heads, i / blocks % heads, i % blocks);
            let queries = block * QUERIES..n.min((block + 1) * QUERIES);
            let (first, last) = (b * n + queries.start, b * n + queries.end);
            // SAFETY: any two blocks have different lines or different columns.
            let mut out = unsafe { whole.part(first..last, h * d..(h + 1) * d) };
            let q = &q[first * width + h * d..];
            let causal_from = (self.mask == Mask::Causal).then_some(queries.start);
            packed[b * heads + h].attend(q, width, causal_from, scratch, &mut out);
        });
        made(out, q_layout.shape().clone())
    }
}

/// The packed keys and values of one head of one row of the batch.
struct Head {
    /// (d, M)
    keys: Panels,
    /// (M, d)
    values: Panels,
}

/// Buffers of a thread, reused from block to block.
#[derive(Default)]
struct Scratch {
    /// (queries, d), divided by √d.
    q: Vec<f32>,
    /// (queries, keys).
    scores: Vec<f32>,
    softmax: Vec<Softmax>,
}

impl Head {
    /// Computes the results of some queries. Lines of `q` are `width` values apart; the first d values of each line
    /// belong to this head. `causal_from` is the position of the first query if the mask is causal.
    fn attend(&self, q: &[f32], width: usize, causal_from: Option<usize>, scratch: &mut Scratch, out: &mut Block<'_>) {
        let (d, m, rows) = (self.keys.k, self.keys.n, out.lines());
        let Scratch { q: scaled, scores, softmax } = scratch;
        let scale = 1.0 / (d as f32).sqrt();
        scaled.clear();
        (0..rows).for_each(|i| scaled.extend(q[i * width..][..d].iter().map(|q| q * scale)));
        softmax.clear();
        softmax.resize(rows, Softmax::EMPTY);
        let end = causal_from.map_or(m, |first| m.min(first + rows));
        for first in (0..end).step_by(KEYS) {
            let keys = first..m.min(first + KEYS);
            let scores = at_least(scores, rows * keys.len());
            let panels = first / WIDTH..keys.end.div_ceil(WIDTH);
            let scored = Block::new(scores, keys.len());
            Product { a: scaled, a_stride: d, b: self.keys.whole(), depth: 0..d, panels, out: scored, add: false }
                .run();
            vectorized(
                #[inline(always)]
                || {
                    for (i, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
                        let seen = causal_from.map_or(m, |from| from + i + 1).saturating_sub(first).min(keys.len());
                        let (seen, hidden) = scores.split_at_mut(seen);
                        let rescale = if seen.is_empty() { 1.0 } else { softmax[i].extend(seen) };
                        hidden.fill(0.0);
                        if first > 0 {
                            out.line(i).iter_mut().for_each(|out| *out *= rescale);
                        }
                    }
                },
            );
            let (a_stride, add, panels) = (keys.len(), first > 0, 0..self.values.count());
            Product { a: scores, a_stride, b: self.values.whole(), depth: keys, panels, out: out.reborrow(), add }
                .run();
        }
        vectorized(
            #[inline(always)]
            || {
                for (i, softmax) in softmax.iter().enumerate() {
                    let scale = softmax.scale();
                    out.line(i).iter_mut().for_each(|out| *out *= scale);
                }
            },
        );
    }
}

/// Attention by candle's operations. Scores and their softmax are float32. Queries are divided by √d before the
/// product, because float16 ends at 65504.
fn composite(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    let (batch, n, width) = q.dims3()?;
    let d = width / heads;
    let split = |x: &Tensor| x.reshape((batch, (), heads, d))?.transpose(1, 2)?.contiguous();
    // Scores can exceed float16 (`upcast_attention` in the configurations of Stable Diffusion 2).
    let float32 = |x: &Tensor| x.to_dtype(DType::F32);
    let (q, k, v) = (split(&(float32(q)? / (d as f64).sqrt())?)?, split(&float32(k)?)?, split(v)?);
    let mut scores = q.matmul(&k.t()?)?;
    if mask == Mask::Causal {
        let m = k.dim(2)?;
        let hidden: Vec<f32> = (0..n * m).map(|at| if at % m > at / m { f32::NEG_INFINITY } else { 0.0 }).collect();
        scores = scores.broadcast_add(&Tensor::from_vec(hidden, (n, m), scores.device())?)?;
    }
    // `softmax_last_dim` has no gradient. The largest score is subtracted only to prevent overflow, so it is excluded
    // from the gradient.
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    weights.to_dtype(v.dtype())?.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch, n, width))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::random::Random;

    /// Attention by its definition, in double precision.
    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Vec<f64> {
        let values = |x: &Tensor| x.to_vec3::<f32>().unwrap();
        let (q, k, v) = (values(q), values(k), values(v));
        let d = q[0][0].len() / heads;
        let mut out = Vec::new();
        for b in 0..q.len() {
            for (i, query) in q[b].iter().enumerate() {
                for h in 0..heads {
                    let seen = if mask == Mask::Causal { i + 1 } else { k[b].len() };
                    let score = |key: &Vec<f32>| {
                        let dot: f64 = (h * d..(h + 1) * d).map(|c| f64::from(query[c]) * f64::from(key[c])).sum();
                        (dot / (d as f64).sqrt()).exp()
                    };
                    let weights: Vec<f64> = k[b][..seen].iter().map(score).collect();
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
        fn like_the_definition(b in 1usize..3, n in prop_oneof![1usize..40, 90usize..100], m in prop_oneof![1usize..40, 250usize..600], heads in 1usize..4, d in 1usize..20, causal: bool, seed: u64) {
            let m = if causal { n } else { m };
            let mask = if causal { Mask::Causal } else { Mask::None };
            let mut random = Random::new(seed);
            let mut random = |n: usize| (random.normal(&[b, n, heads * d], 0.0) * 1.5).unwrap();
            let (q, k, v) = (random(n), random(m), random(m));
            let expected = naive(&q, &k, &v, heads, mask);
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let made = kernels.attention(&q, &k, &v, heads, mask).unwrap();
                let made = made.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (made, expected) in made.iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < 2e-5, "{} {}", made, expected);
                }
            }
        }
    }
}
