//! Scaled dot-product attention over several heads.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    gemm::{Panels, product},
    softmax::softmax,
    storage::{floats, made},
};

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own place and before.
    Causal,
}

/// softmax(q·kᵀ/√d)·v per head: q (B, N, H·d), k and v (B, M, H·d) → (B, N, H·d).
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    if q.device().is_cpu() {
        return q.apply_op3_no_bwd(k, v, &Attention { heads, mask });
    }
    composite(q, k, v, heads, mask)
}

struct Attention {
    heads: usize,
    mask: Mask,
}

/// Queries at a time: their scores stay in the second cache up to some thousand keys, and no larger matrix exists.
const QUERIES: usize = 96;

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
        if [k_layout.shape(), v_layout.shape()] != [&keys, &keys]
            || width % self.heads != 0
            || batch * n * m == 0
        {
            let shapes = (q_layout.shape(), k_layout.shape(), v_layout.shape());
            candle_core::bail!("attention: {shapes:?} in {} heads", self.heads);
        }
        let (q, k, v) = (
            floats(q, q_layout)?,
            floats(k, k_layout)?,
            floats(v, v_layout)?,
        );
        let mut out = vec![0.0; q.len()];
        out.par_chunks_mut(n * width)
            .zip(q.par_chunks(n * width))
            .enumerate()
            .for_each(|(b, (out, q))| {
                let (k, v) = (
                    &k[b * m * width..][..m * width],
                    &v[b * m * width..][..m * width],
                );
                let heads: Vec<Head> = (0..self.heads)
                    .into_par_iter()
                    .map(|h| Head::new(k, v, h, width / self.heads, width))
                    .collect();
                let blocks = out
                    .par_chunks_mut(QUERIES * width)
                    .zip(q.par_chunks(QUERIES * width))
                    .enumerate();
                blocks.for_each_init(Vec::new, |scores, (i, (out, q))| {
                    let causal_from = (self.mask == Mask::Causal).then_some(i * QUERIES);
                    for (h, head) in heads.iter().enumerate() {
                        head.attend(
                            &q[h * head.width()..],
                            width,
                            causal_from,
                            scores,
                            &mut out[h * head.width()..],
                        );
                    }
                });
            });
        made(out, q_layout.shape().clone())
    }
}

/// Keys and values of one head of one row, packed.
struct Head {
    /// (d, M)
    keys: Panels,
    /// (M, d)
    values: Panels,
}

impl Head {
    fn new(k: &[f32], v: &[f32], h: usize, d: usize, width: usize) -> Self {
        let m = k.len() / width;
        Self {
            keys: Panels::pack(&k[h * d..], d, m, 1, width),
            values: Panels::pack(&v[h * d..], m, d, width, 1),
        }
    }

    fn width(&self) -> usize {
        self.keys.k
    }

    /// Queries and results have lines `width` apart, of which this head has the first d numbers.
    fn attend(
        &self,
        q: &[f32],
        width: usize,
        causal_from: Option<usize>,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (d, m) = (self.keys.k, self.keys.n);
        let rows = q.len().div_ceil(width);
        scores.resize(rows * m, 0.0);
        product(q, width, rows, &self.keys, 0..self.keys.count(), scores, m);
        for (i, scores) in scores.chunks_exact_mut(m).enumerate() {
            let seen = causal_from.map_or(m, |first| m.min(first + i + 1));
            let (seen, hidden) = scores.split_at_mut(seen);
            softmax(seen, 1.0 / (d as f32).sqrt());
            hidden.fill(0.0);
        }
        product(
            scores,
            m,
            rows,
            &self.values,
            0..self.values.count(),
            out,
            width,
        );
    }
}

/// The same by candle's operations, for other devices.
fn composite(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    let (batch, n, width) = q.dims3()?;
    let d = width / heads;
    let split = |x: &Tensor| {
        x.reshape((batch, (), heads, d))?
            .transpose(1, 2)?
            .contiguous()
    };
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let mut scores = (q.matmul(&k.t()?)? / (d as f64).sqrt())?;
    if mask == Mask::Causal {
        let m = k.dim(2)?;
        let hidden: Vec<f32> = (0..n * m)
            .map(|at| {
                if at % m > at / m {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
            .collect();
        scores = scores.broadcast_add(&Tensor::from_vec(hidden, (n, m), scores.device())?)?;
    }
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    weights
        .matmul(&v)?
        .transpose(1, 2)?
        .reshape((batch, n, width))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    /// The definition, in double precision.
    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Vec<f64> {
        let values = |x: &Tensor| x.to_vec3::<f32>().unwrap();
        let (q, k, v) = (values(q), values(k), values(v));
        let d = q[0][0].len() / heads;
        let mut out = Vec::new();
        for b in 0..q.len() {
            for (i, query) in q[b].iter().enumerate() {
                for h in 0..heads {
                    let seen = if mask == Mask::Causal {
                        i + 1
                    } else {
                        k[b].len()
                    };
                    let score = |key: &Vec<f32>| {
                        let dot: f64 = (h * d..(h + 1) * d)
                            .map(|c| f64::from(query[c]) * f64::from(key[c]))
                            .sum();
                        (dot / (d as f64).sqrt()).exp()
                    };
                    let weights: Vec<f64> = k[b][..seen].iter().map(score).collect();
                    let sum: f64 = weights.iter().sum();
                    let value = |c: usize| {
                        weights
                            .iter()
                            .zip(&v[b])
                            .map(|(w, v)| w / sum * f64::from(v[c]))
                            .sum::<f64>()
                    };
                    out.extend((h * d..(h + 1) * d).map(value));
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn like_the_definition(b in 1usize..3, n in prop_oneof![1usize..40, 90usize..100], m in 1usize..40, heads in 1usize..4, d in 1usize..20, causal: bool) {
            let m = if causal { n } else { m };
            let mask = if causal { Mask::Causal } else { Mask::None };
            let random = |n: usize| Tensor::randn(0f32, 1.5, (b, n, heads * d), &Device::Cpu).unwrap();
            let (q, k, v) = (random(n), random(m), random(m));
            let expected = naive(&q, &k, &v, heads, mask);
            for made in [attention(&q, &k, &v, heads, mask).unwrap(), composite(&q, &k, &v, heads, mask).unwrap()] {
                let made = made.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (made, expected) in made.iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < 2e-5, "{} {}", made, expected);
                }
            }
        }
    }
}
