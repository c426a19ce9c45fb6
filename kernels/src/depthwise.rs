//! Depthwise convolution of channels-last maps: each channel has a 3 × 3 kernel of its own.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    simd::vectorized,
    storage::{blank, floats, made},
};

/// Places that the kernel covers.
const TAPS: usize = 9;

impl Kernels {
    /// x (B, h, w, C) by `weight` (9, C), the kernels of all channels row by row, with one line of zeros on each side
    /// of the map → (B, h, w, C).
    pub fn depthwise(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op2_no_bwd(weight, &Depthwise),
            Kernels::Reference(_) => composite(x, weight),
        }
    }
}

fn composite(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (_, h, w, c) = x.dims4()?;
    let padded = x.pad_with_zeros(1, 1, 1)?.pad_with_zeros(2, 1, 1)?;
    let tap = |tap: usize| {
        let seen = padded.narrow(1, tap / 3, h)?.narrow(2, tap % 3, w)?;
        seen.broadcast_mul(&weight.narrow(0, tap, 1)?.reshape((1, 1, 1, c))?.to_dtype(x.dtype())?)
    };
    (1..TAPS).try_fold(tap(0)?, |sum, next| sum + tap(next)?)
}

struct Depthwise;

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, h, w, c) = x_layout.shape().dims4()?;
        let (x, weight) = (floats(x, x_layout)?, floats(weight, weight_layout)?);
        if weight_layout.dims() != [TAPS, c] || x.is_empty() {
            candle_core::bail!("depthwise: {:?} by {:?}", x_layout.shape(), weight_layout.shape());
        }
        let mut out = blank(batch * h * w * c);
        out.par_chunks_mut(w * c).enumerate().for_each(|(line, out)| {
            let (map, y) = (&x[line / h * h * w * c..][..h * w * c], line % h);
            vectorized(
                #[inline(always)]
                || {
                    for (column, out) in out.chunks_exact_mut(c).enumerate() {
                        out.fill(0.0);
                        for tap in 0..TAPS {
                            let (Some(y), Some(column)) = (seen(y, tap / 3, h), seen(column, tap % 3, w)) else {
                                continue;
                            };
                            let (seen, weight) = (&map[(y * w + column) * c..][..c], &weight[tap * c..][..c]);
                            out.iter_mut().zip(seen).zip(weight).for_each(|((out, x), weight)| *out += x * weight);
                        }
                    }
                },
            );
        });
        made(out, (batch, h, w, c))
    }
}

/// The index that offset 0, 1 or 2 of a kernel around `at` sees; `None` for the zeros around the map.
#[inline(always)]
fn seen(at: usize, offset: usize, size: usize) -> Option<usize> {
    (at + offset).checked_sub(1).filter(|at| *at < size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        conv2d::{Conv2d, Geometry},
        random::Random,
        winograd,
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// A convolution whose matrix mixes no channels.
        #[test]
        fn like_a_convolution_with_a_diagonal_weight(
            b in 1usize..3, h in 1usize..6, w in 1usize..6, c in 1usize..20, seed: u64,
        ) {
            let mut random = Random::new(seed);
            let (x, weight) = (random.normal(&[b, h, w, c], 0.0), random.normal(&[TAPS, c], 0.0));
            let taps = weight.to_vec2::<f32>().unwrap();
            let whole: Vec<f32> = (0..TAPS * c * c)
                .map(|i| if i / c % c == i % c { taps[i / c / c][i % c] } else { 0.0 })
                .collect();
            let whole = Tensor::from_vec(whole, (TAPS * c, c), x.device()).unwrap();
            let zeros = random.normal(&[c], 0.0).zeros_like().unwrap();
            let exact = Kernels::Packed(winograd::Use::Off);
            let expected = Conv2d::new(&whole, &zeros, Geometry::square(3, 1, 1), exact).unwrap().forward(&x).unwrap();
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let made = kernels.depthwise(&x, &weight).unwrap();
                prop_assert_eq!(made.dims(), x.dims());
                let error = (made - &expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                prop_assert!(error < 1e-5, "{}", error);
            }
        }
    }

    #[test]
    fn a_weight_for_other_channels_is_an_error() {
        let mut random = Random::new(1);
        let (x, weight) = (random.normal(&[1, 3, 3, 4], 0.0), random.normal(&[TAPS, 5], 0.0));
        assert!([Kernels::default(), Kernels::REFERENCE].iter().all(|kernels| kernels.depthwise(&x, &weight).is_err()));
    }
}
