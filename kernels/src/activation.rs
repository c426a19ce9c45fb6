//! The activation functions SiLU, GELU and leaky ReLU.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    exp::exp,
    simd::vectorized,
    storage::{blank, floats, made},
};

impl Kernels {
    /// x·σ(x), element by element: `silu` and `swish` in diffusers.
    pub fn silu(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op1_no_bwd(&Map("silu", silu_of)),
            Kernels::Reference(_) => x.silu(),
        }
    }

    /// x·σ(1.702·x), element by element: CLIP's `quick_gelu`.
    pub fn quick_gelu(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op1_no_bwd(&Map("quick_gelu", quick_gelu_of)),
            Kernels::Reference(_) => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
        }
    }

    /// x·Φ(x) with the error function instead of the tanh approximation: `gelu` in transformers and diffusers.
    pub fn gelu_erf(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op1_no_bwd(&Map("gelu_erf", gelu_erf_of)),
            Kernels::Reference(_) => x.gelu_erf(),
        }
    }

    /// x·Φ(x) with the tanh approximation: `gelu-approximate` in diffusers.
    pub fn gelu_tanh(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op1_no_bwd(&Map("gelu_tanh", gelu_tanh_of)),
            Kernels::Reference(_) => x.gelu(),
        }
    }

    /// x where x is positive, otherwise `slope`·x, element by element, for a `slope` in [0, 1].
    pub fn leaky_relu(self, x: &Tensor, slope: f32) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op1_no_bwd(&Map("leaky_relu", move |x: f32| x.max(slope * x))),
            Kernels::Reference(_) => x.maximum(&(x * f64::from(slope))?),
        }
    }
}

#[inline(always)]
pub(super) fn silu_of(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn quick_gelu_of(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

#[inline(always)]
pub(super) fn gelu_erf_of(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `x (1 + tanh u) / 2` is `x / (1 + e^(−2u))`, for `u = √(2/π) (x + 0.044715 x³)`.
#[inline(always)]
pub(super) fn gelu_tanh_of(x: f32) -> f32 {
    x / (1.0 + exp(-1.595_769 * x * f32::mul_add(0.044_715 * x, x, 1.0)))
}

/// The error function by Abramowitz & Stegun 7.1.26; absolute error below 5e-7 in float32.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let mut sum = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        sum = f32::mul_add(sum, t, coefficient);
    }
    (1.0 - sum * t * exp(-x * x)).copysign(x)
}

/// The number of floats that a thread computes at a time. Only the last chunk of a tensor is smaller.
const GRAIN: usize = 1 << 13;

/// An element-wise function and its name. Generic, so that each function gets its own vectorized loop.
struct Map<F>(&'static str, F);

impl<F: Fn(f32) -> f32 + Sync> CustomOp1 for Map<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(storage, layout)?;
        let mut y = blank(x.len());
        y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || y.iter_mut().zip(x).for_each(|(y, x)| *y = self.1(*x)),
            );
        });
        made(y, layout.shape().clone())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn activations_are_close_to_the_formulas_in_float64() {
        let x: Vec<f32> = (-2000..=2000).map(|i| i as f32 * 5e-3).collect();
        let tensor = Tensor::new(x.as_slice(), &Device::Cpu).unwrap();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let tanh = |x: f64| (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh();
        let phi = |x: f64| 0.5 * (1.0 + libm::erf(x / 2f64.sqrt()));
        for kernels in [Kernels::default(), Kernels::REFERENCE] {
            for (made, exact) in [
                (kernels.silu(&tensor), &(|x| x * sigmoid(x)) as &dyn Fn(f64) -> f64),
                (kernels.quick_gelu(&tensor), &|x| x * sigmoid(1.702 * x)),
                (kernels.gelu_erf(&tensor), &|x| x * phi(x)),
                (kernels.gelu_tanh(&tensor), &|x| 0.5 * x * (1.0 + tanh(x))),
                (kernels.leaky_relu(&tensor, 0.1), &|x| if x > 0.0 { x } else { 0.1 * x }),
            ] {
                for (x, y) in x.iter().zip(made.unwrap().to_vec1::<f32>().unwrap()) {
                    let exact = exact(f64::from(*x));
                    assert!((f64::from(y) - exact).abs() < 1e-6 * (1.0 + x.abs() as f64), "f({x}) = {y}, not {exact}");
                }
            }
        }
    }
}
