//! Scaled dot-product attention over several heads.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::softmax::Softmax;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own place and before.
    Causal,
}

/// softmax(q·kᵀ/√d)·v per head: q (B, N, H·d), k and v (B, M, H·d) → (B, N, H·d).
///
/// One product per row and head, so rows cannot feel each other; the score matrix of a head is cut into blocks of
/// queries where it would exceed [`BLOCK`] floats, which the shape of a row alone decides.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    let (batch, n, width) = q.dims3()?;
    let d = width / heads;
    if !q.device().is_cpu() {
        return composite(q, k, v, heads, mask);
    }
    let of_heads = (0..batch * heads)
        .into_par_iter()
        .map(|i| {
            let head = |x: &Tensor| x.get(i / heads)?.narrow(1, (i % heads) * d, d);
            one_head(&head(q)?, &head(k)?, &head(v)?, mask)
        })
        .collect::<Result<Vec<_>>>()?;
    let stacked = Tensor::cat(&of_heads, 0)?.reshape((batch, heads, n, d))?;
    stacked.transpose(1, 2)?.reshape((batch, n, width))
}

/// 16 MiB of scores: every thread holds a block of its own.
const BLOCK: usize = 1 << 22;

/// q (N, d), k and v (M, d) → (N, d).
fn one_head(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) -> Result<Tensor> {
    let ((n, d), m) = (q.dims2()?, k.dim(0)?);
    let scale = 1.0 / (d as f32).sqrt();
    let k = k.t()?;
    let block = (BLOCK / m.max(1)).max(1);
    let blocks = (0..n).step_by(block).map(|first| {
        let scores = q.narrow(0, first, block.min(n - first))?.matmul(&k)?; // (block, M)
        scores.inplace_op1(&Softmax {
            scale,
            causal_from: (mask == Mask::Causal).then_some(first),
        })?;
        scores.matmul(v)
    });
    let blocks = blocks.collect::<Result<Vec<_>>>()?;
    Tensor::cat(&blocks, 0)
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
        fn like_the_definition(b in 1usize..3, n in 1usize..40, m in 1usize..40, heads in 1usize..4, d in 1usize..20, causal: bool) {
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

    #[test]
    fn blocks_of_queries_change_nothing() {
        let (n, m) = (70, BLOCK / 32);
        let random = |n: usize| Tensor::randn(0f32, 1.0, (1, n, 4), &Device::Cpu).unwrap();
        let (q, k, v) = (random(n), random(m), random(m));
        let whole = attention(&q, &k, &v, 1, Mask::None).unwrap();
        let tail = attention(&q.narrow(1, 64, 6).unwrap(), &k, &v, 1, Mask::None).unwrap();
        let difference = (whole.narrow(1, 64, 6).unwrap() - tail)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-6);
    }
}
