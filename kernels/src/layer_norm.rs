//! Layer normalization.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    lanes::sum,
    simd::vectorized,
    storage::{blank, floats, made},
};

impl Kernels {
    /// x (…, C) → (…, C), normalized over the last dimension, then scaled by `weight` (C) and shifted by `bias` (C).
    ///
    /// The rounding error of the mean grows with the values and may be large beside their deviations from the mean. So
    /// a second pass computes the mean of the deviations and subtracts this mean too.
    pub fn layer_norm(self, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op3_no_bwd(weight, bias, &LayerNorm { eps: eps as f32 }),
            Kernels::Reference(_) => composite(x, weight, bias, eps),
        }
    }
}

/// Layer normalization by candle's basic operations, because candle's own layer norm has no gradient.
///
/// The statistics are float32: sums of many numbers of 16 bits are too rough.
fn composite(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let precision = x.dtype();
    let (x, weight, bias) = (x.to_dtype(DType::F32)?, weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?);
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let centered = centered.broadcast_sub(&centered.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centered.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(&weight)?.broadcast_add(&bias)?.to_dtype(precision)
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (floats(x, x_layout)?, floats(weight, weight_layout)?, floats(bias, bias_layout)?);
        let width = weight.len();
        if width == 0 || x_layout.dims().last() != Some(&width) || bias.len() != width {
            candle_core::bail!("layer_norm: {:?} by {width} weights", x_layout.shape());
        }
        let mut y = blank(x.len());
        let grain = (1usize << 13).div_ceil(width) * width;
        y.par_chunks_mut(grain).zip(x.par_chunks(grain)).for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let mean = sum(x, |x| x) / width as f32;
                        let rest = sum(x, |x| x - mean) / width as f32;
                        let variance = sum(x, |x| (x - mean - rest) * (x - mean - rest)) / width as f32;
                        let inverse = 1.0 / (variance + self.eps).sqrt();
                        for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                            *y = (x - mean - rest) * inverse * weight + bias;
                        }
                    }
                },
            )
        });
        made(y, x_layout.shape().clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn like_the_definition(rows in 1usize..5, width in 1usize..90, mean in -1000f32..1000.0, seed: u64) {
            let mut random = Random::new(seed);
            let x = random.normal(&[rows, width], mean);
            let (weight, bias) = (random.normal(&[width], 1.0), random.normal(&[width], 0.0));
            let made = |kernels: Kernels| kernels.layer_norm(&x, &weight, &bias, 1e-5).unwrap();
            let made = |kernels: Kernels| made(kernels).to_vec2::<f32>().unwrap();
            let made = [made(Kernels::default()), made(Kernels::REFERENCE)];
            let (weight, bias) = (weight.to_vec1::<f32>().unwrap(), bias.to_vec1::<f32>().unwrap());
            let x = x.to_vec2::<f32>().unwrap();
            for (made, x) in made.iter().flat_map(|made| made.iter().zip(x.clone())) {
                let x: Vec<f64> = x.into_iter().map(f64::from).collect();
                let mean = x.iter().sum::<f64>() / width as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                for c in 0..width {
                    let exact = (x[c] - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c]) + f64::from(bias[c]);
                    prop_assert!((f64::from(made[c]) - exact).abs() < 1e-4, "{} {}", made[c], exact);
                }
            }
        }
    }
}
