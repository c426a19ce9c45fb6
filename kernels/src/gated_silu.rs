//! The gate of SwiGLU (Shazeer 2020, arXiv:2002.05202).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    activation::silu_of,
    simd::vectorized,
    storage::{blank, floats, made},
};

impl Kernels {
    /// SiLU(gate) ⊙ x, element by element. Both tensors have the same shape.
    pub fn gated_silu(self, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => gate.apply_op2_no_bwd(x, &GatedSilu),
            Kernels::Reference(_) => gate.silu()? * x,
        }
    }
}

/// The number of floats that a thread computes at a time.
const GRAIN: usize = 1 << 13;

struct GatedSilu;

impl CustomOp2 for GatedSilu {
    fn name(&self) -> &'static str {
        "gated_silu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if gate_layout.shape() != x_layout.shape() {
            candle_core::bail!("gated_silu: {:?} and {:?}", gate_layout.shape(), x_layout.shape());
        }
        let (gate, x) = (floats(gate, gate_layout)?, floats(x, x_layout)?);
        let mut y = blank(x.len());
        let parts = y.par_chunks_mut(GRAIN).zip(gate.par_chunks(GRAIN)).zip(x.par_chunks(GRAIN));
        parts.for_each(|((y, gate), x)| {
            vectorized(
                #[inline(always)]
                || y.iter_mut().zip(gate).zip(x).for_each(|((y, gate), x)| *y = silu_of(*gate) * x),
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
        fn like_the_definition(rows in 1usize..5, width in 1usize..9000, seed: u64) {
            let mut random = Random::new(seed);
            let (gate, x) = (random.normal(&[rows, width], 0.0), random.normal(&[rows, width], 0.0));
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let made = values(&kernels.gated_silu(&gate, &x).unwrap());
                for ((made, gate), x) in made.iter().zip(values(&gate)).zip(values(&x)) {
                    let exact = f64::from(gate) / (1.0 + f64::from(-gate).exp()) * f64::from(x);
                    prop_assert!((f64::from(*made) - exact).abs() < 1e-5, "{} {}", made, exact);
                }
            }
        }
    }
}
