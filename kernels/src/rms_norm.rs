//! Root mean square normalization (Zhang and Sennrich 2019, arXiv:1910.07467).

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    lanes::sum,
    simd::vectorized,
    storage::{blank, floats, made},
};

impl Kernels {
    /// x (…, C) → (…, C): x / √(mean(x²) + eps) over the last dimension, scaled by `weight` (C).
    pub fn rms_norm(self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op2_no_bwd(weight, &RmsNorm { eps: eps as f32 }),
            Kernels::Reference(_) => composite(x, weight, eps),
        }
    }
}

/// The statistics are float32: sums of many numbers of 16 bits are too rough.
fn composite(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let precision = x.dtype();
    let (x, weight) = (x.to_dtype(DType::F32)?, weight.to_dtype(DType::F32)?);
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(&weight)?.to_dtype(precision)
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (floats(x, x_layout)?, floats(weight, weight_layout)?);
        let width = weight.len();
        if width == 0 || x_layout.dims().last() != Some(&width) {
            candle_core::bail!("rms_norm: {:?} by {width} weights", x_layout.shape());
        }
        let mut y = blank(x.len());
        let grain = (1usize << 13).div_ceil(width) * width;
        y.par_chunks_mut(grain).zip(x.par_chunks(grain)).for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let inverse = 1.0 / (sum(x, |x| x * x) / width as f32 + self.eps).sqrt();
                        y.iter_mut().zip(x).zip(weight).for_each(|((y, x), weight)| *y = x * inverse * weight);
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
        fn like_the_definition(rows in 1usize..5, width in 1usize..90, mean in -10f32..10.0, seed: u64) {
            let mut random = Random::new(seed);
            let (x, weight) = (random.normal(&[rows, width], mean), random.normal(&[width], 1.0));
            let made = |kernels: Kernels| kernels.rms_norm(&x, &weight, 1e-6).unwrap().to_vec2::<f32>().unwrap();
            let made = [made(Kernels::default()), made(Kernels::REFERENCE)];
            let (weight, x) = (weight.to_vec1::<f32>().unwrap(), x.to_vec2::<f32>().unwrap());
            for (made, x) in made.iter().flat_map(|made| made.iter().zip(&x)) {
                let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                for c in 0..width {
                    let exact = f64::from(x[c]) / (mean + 1e-6).sqrt() * f64::from(weight[c]);
                    prop_assert!((f64::from(made[c]) - exact).abs() < 1e-4, "{} {}", made[c], exact);
                }
            }
        }
    }
}
