//! Bounds on values: ReLU, and the soft clamp at the input of tiny autoencoders.

use candle_core::{CpuStorage, CustomOp1, InplaceOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    simd::vectorized,
    storage::{floats, floats_mut, made},
};

impl Kernels {
    /// max(x, 0), element by element. If `x` is contiguous, packed kernels keep NaN and write the result into the
    /// memory of `x`, so no other tensor may share this memory.
    pub fn relu(self, x: Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) if x.is_contiguous() => {
                x.inplace_op1(&Relu)?;
                Ok(x)
            }
            _ => x.relu(),
        }
    }

    /// bound·tanh(x/bound), element by element. The loop is not vectorized, because latents have few values.
    pub fn soft_clamp(self, x: &Tensor, bound: f32) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op1_no_bwd(&SoftClamp(bound)),
            Kernels::Reference(_) => (x / f64::from(bound))?.tanh()? * f64::from(bound),
        }
    }
}

/// The number of floats that a thread computes at a time. Only the last chunk of a tensor is smaller.
const GRAIN: usize = 1 << 14;

struct Relu;

impl InplaceOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu_over"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        floats_mut(x, layout)?.par_chunks_mut(GRAIN).for_each(|x| {
            // `max` would turn NaN into 0 and so hide that a network has failed.
            vectorized(
                #[inline(always)]
                || x.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
            );
        });
        Ok(())
    }
}

struct SoftClamp(f32);

impl CustomOp1 for SoftClamp {
    fn name(&self) -> &'static str {
        "soft_clamp"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let clamped = floats(storage, layout)?.iter().map(|x| self.0 * libm::tanhf(x / self.0)).collect();
        made(clamped, layout.shape().clone())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn clamps_equal_their_formulas() {
        let x: Vec<f32> = (-40_000..40_000).map(|i| i as f32 * 1e-3).collect();
        let tensor = || Tensor::new(x.as_slice(), &Device::Cpu).unwrap();
        for kernels in [Kernels::default(), Kernels::REFERENCE] {
            let (rectified, clamped) = (kernels.relu(tensor()).unwrap(), kernels.soft_clamp(&tensor(), 3.0).unwrap());
            let (rectified, clamped) = (rectified.to_vec1::<f32>().unwrap(), clamped.to_vec1::<f32>().unwrap());
            for ((x, rectified), clamped) in x.iter().zip(rectified).zip(clamped) {
                assert_eq!(rectified, x.max(0.0));
                assert!((f64::from(clamped) - 3.0 * (f64::from(*x) / 3.0).tanh()).abs() < 1e-6, "{x}: {clamped}");
            }
        }
        let strange = Tensor::new(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], &Device::Cpu).unwrap();
        let strange = Kernels::default().relu(strange).unwrap().to_vec1::<f32>().unwrap();
        assert!(strange[0].is_nan() && strange[1..] == [f32::INFINITY, 0.0]);
    }
}
