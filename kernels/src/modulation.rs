//! The element-wise operations around each layer of a diffusion transformer (Peebles and Xie 2023, arXiv:2212.09748): a
//! layer norm whose scale and shift depend on the time, and a sum with a gate; and the mixture of two results.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    lanes::sum,
    simd::vectorized,
    storage::{blank, floats, made},
};

impl Kernels {
    /// x (B, N, D), scale and shift (B, 1, D) → (B, N, D): the layer norm of x without weights, times 1 + scale, plus
    /// shift.
    pub fn modulated_norm(self, x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op3_no_bwd(shift, scale, &ModulatedNorm { eps: eps as f32 }),
            Kernels::Reference(_) => composite(x, shift, scale, eps),
        }
    }

    /// x and y (B, N, D), gate (B, 1, D) → x + gate · y, (B, N, D).
    pub fn gated_sum(self, x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op3_no_bwd(y, gate, &GatedSum),
            Kernels::Reference(_) => x + y.broadcast_mul(gate)?,
        }
    }

    /// x and y of one shape → share · x + (1 − share) · y.
    pub fn mixture(self, x: &Tensor, y: &Tensor, share: f64) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op2_no_bwd(y, &Mixture { share: share as f32 }),
            Kernels::Reference(_) => (x * share)? + (y * (1.0 - share))?,
        }
    }
}

/// The statistics are float32: sums of many numbers of 16 bits are too rough.
fn composite(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    let precision = x.dtype();
    let (x, shift, scale) = (x.to_dtype(DType::F32)?, shift.to_dtype(DType::F32)?, scale.to_dtype(DType::F32)?);
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let centered = centered.broadcast_sub(&centered.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centered.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(&shift)?.to_dtype(precision)
}

/// The number of floats that a thread computes at a time.
const GRAIN: usize = 1 << 13;

struct ModulatedNorm {
    eps: f32,
}

impl CustomOp3 for ModulatedNorm {
    fn name(&self) -> &'static str {
        "modulated_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (b, n, width) = x_layout.shape().dims3()?;
        let of_rows = Shape::from((b, 1, width));
        if [shift_layout.shape(), scale_layout.shape()] != [&of_rows, &of_rows] || b * n * width == 0 {
            candle_core::bail!("modulated_norm: {:?} by {:?}", x_layout.shape(), scale_layout.shape());
        }
        let (x, shift, scale) = (floats(x, x_layout)?, floats(shift, shift_layout)?, floats(scale, scale_layout)?);
        let mut y = blank(x.len());
        let lines = GRAIN.div_ceil(width);
        y.par_chunks_mut(lines * width).zip(x.par_chunks(lines * width)).enumerate().for_each(|(chunk, (y, x))| {
            vectorized(
                #[inline(always)]
                || {
                    for (i, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                        let row = (chunk * lines + i) / n * width;
                        let (shift, scale) = (&shift[row..row + width], &scale[row..row + width]);
                        let mean = sum(x, |x| x) / width as f32;
                        let rest = sum(x, |x| x - mean) / width as f32;
                        let variance = sum(x, |x| (x - mean - rest) * (x - mean - rest)) / width as f32;
                        let inverse = 1.0 / (variance + self.eps).sqrt();
                        for (((y, x), shift), scale) in y.iter_mut().zip(x).zip(shift).zip(scale) {
                            *y = (x - mean - rest) * inverse * (1.0 + scale) + shift;
                        }
                    }
                },
            )
        });
        made(y, x_layout.shape().clone())
    }
}

struct GatedSum;

impl CustomOp3 for GatedSum {
    fn name(&self) -> &'static str {
        "gated_sum"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
        gate: &CpuStorage,
        gate_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (b, n, width) = x_layout.shape().dims3()?;
        if y_layout.shape() != x_layout.shape()
            || gate_layout.shape() != &Shape::from((b, 1, width))
            || b * n * width == 0
        {
            candle_core::bail!("gated_sum: {:?} and {:?}", x_layout.shape(), (y_layout.shape(), gate_layout.shape()));
        }
        let (x, y, gate) = (floats(x, x_layout)?, floats(y, y_layout)?, floats(gate, gate_layout)?);
        let mut made_of = blank(x.len());
        let lines = GRAIN.div_ceil(width);
        made_of.par_chunks_mut(lines * width).enumerate().for_each(|(chunk, out)| {
            vectorized(
                #[inline(always)]
                || {
                    for (i, out) in out.chunks_exact_mut(width).enumerate() {
                        let line = chunk * lines + i;
                        let (from, row) = (line * width, line / n * width);
                        let (x, y, gate) = (&x[from..from + width], &y[from..from + width], &gate[row..row + width]);
                        for (((out, x), y), gate) in out.iter_mut().zip(x).zip(y).zip(gate) {
                            *out = x + y * gate;
                        }
                    }
                },
            )
        });
        made(made_of, x_layout.shape().clone())
    }
}

struct Mixture {
    share: f32,
}

impl CustomOp2 for Mixture {
    fn name(&self) -> &'static str {
        "mixture"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if x_layout.shape() != y_layout.shape() {
            candle_core::bail!("mixture: {:?} and {:?}", x_layout.shape(), y_layout.shape());
        }
        let (x, y, share, rest) = (floats(x, x_layout)?, floats(y, y_layout)?, self.share, 1.0 - self.share);
        let mut made_of = blank(x.len());
        let parts = made_of.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).zip(y.par_chunks(GRAIN));
        parts.for_each(|((out, x), y)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                        *out = share * x + rest * y;
                    }
                },
            )
        });
        made(made_of, x_layout.shape().clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn like_the_definition(b in 1usize..4, n in 1usize..300, width in 1usize..90, mean in -100f32..100.0, seed: u64) {
            let mut random = Random::new(seed);
            let (x, y) = (random.normal(&[b, n, width], mean), random.normal(&[b, n, width], 0.0));
            let (shift, scale) = (random.normal(&[b, 1, width], 0.0), random.normal(&[b, 1, width], 0.0));
            let (ones, zeros) = (Tensor::ones(width, DType::F32, x.device()).unwrap(), random.normal(&[width], 0.0));
            let zeros = (zeros * 0.0).unwrap();
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let normed = kernels.layer_norm(&x, &ones, &zeros, 1e-5).unwrap();
                let exact = normed.broadcast_mul(&(&scale + 1.0).unwrap()).unwrap().broadcast_add(&shift).unwrap();
                prop_assert_eq!(values(&kernels.modulated_norm(&x, &shift, &scale, 1e-5).unwrap()), values(&exact));
                let exact = (&x + y.broadcast_mul(&scale).unwrap()).unwrap();
                prop_assert_eq!(values(&kernels.gated_sum(&x, &y, &scale).unwrap()), values(&exact));
                // 0.25 and 0.75 are exact in float32.
                let exact = ((&x * 0.25).unwrap() + (&y * 0.75).unwrap()).unwrap();
                prop_assert_eq!(values(&kernels.mixture(&x, &y, 0.25).unwrap()), values(&exact));
            }
        }
    }
}
