//! Group normalization of channels-last maps, optionally with SiLU in the same pass.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    Kernels,
    activation::silu_of,
    simd::vectorized,
    storage::{blank, floats, made},
};

/// The activation function after the norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    Silu,
}

impl Kernels {
    /// x (B, …, C) → (B, …, C), normalized over all positions and the channels of each group, then scaled by `weight`
    /// (C) and shifted by `bias` (C), like PyTorch's `GroupNorm`.
    pub fn group_norm(
        self,
        x: &Tensor,
        groups: usize,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
        then: Then,
    ) -> Result<Tensor> {
        match self {
            Kernels::Packed(_) => x.apply_op3_no_bwd(weight, bias, &GroupNorm { groups, eps, then }),
            Kernels::Reference(_) => composite(x, groups, weight, bias, eps, then),
        }
    }
}

struct GroupNorm {
    groups: usize,
    eps: f64,
    then: Then,
}

/// Positions per partial sum. This is a constant, so that the order of the sums does not depend on the number of
/// threads.
const PLACES: usize = 64;

/// The least number of floats that a thread computes at a time, if a row has at least this number.
const GRAIN: usize = 1 << 13;

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
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
        let dims = x_layout.dims();
        let (x, weight, bias) = (floats(x, x_layout)?, floats(weight, weight_layout)?, floats(bias, bias_layout)?);
        let [batch, .., channels] = *dims else { candle_core::bail!("group_norm: {dims:?} has no channels") };
        if x.is_empty() || channels % self.groups != 0 || weight.len() != channels || bias.len() != channels {
            candle_core::bail!("group_norm: {dims:?} in {} groups, {} weights", self.groups, weight.len());
        }
        let row = x.len() / batch;
        let mut y = blank(x.len());
        y.par_chunks_mut(row).zip(x.par_chunks(row)).for_each(|(y, x)| {
            let Affine { center, scale, shift } = self.affine(x, weight, bias);
            y.par_chunks_mut(PLACES * channels)
                .zip(x.par_chunks(PLACES * channels))
                .with_min_len(GRAIN.div_ceil(PLACES * channels))
                .for_each(|(y, x)| {
                    vectorized(
                        #[inline(always)]
                        || {
                            for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                                let normed = x.iter().zip(&center).zip(&scale).zip(&shift);
                                let normed = normed.map(|(((x, center), scale), shift)| (x - center) * scale + shift);
                                match self.then {
                                    Then::Nothing => y.iter_mut().zip(normed).for_each(|(y, normed)| *y = normed),
                                    Then::Silu => y.iter_mut().zip(normed).for_each(|(y, normed)| *y = silu_of(normed)),
                                }
                            }
                        },
                    )
                });
        });
        made(y, x_layout.shape().clone())
    }
}

impl GroupNorm {
    /// The norm of one row of the batch, computed from that row only.
    fn affine(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Affine {
        let channels = weight.len();
        let per_group = channels / self.groups;
        let partial: Vec<Sums> = x
            .par_chunks(PLACES * channels)
            .with_min_len(GRAIN.div_ceil(PLACES * channels))
            .map(|x| Sums::of(x, channels))
            .collect();
        let [mut center, mut scale, mut shift] = [(); 3].map(|()| vec![0.0; channels]);
        for group in 0..self.groups {
            let of = group * per_group..(group + 1) * per_group;
            let count = (x.len() / channels * per_group) as f64;
            let sum = |part: fn(&Sums) -> &Vec<f64>| partial.iter().flat_map(|s| &part(s)[of.clone()]).sum::<f64>();
            let mean = sum(|s| &s.values) / count;
            let variance = (sum(|s| &s.squares) / count - mean * mean).max(0.0);
            let inverse = 1.0 / (variance + self.eps).sqrt();
            for c in of.clone() {
                let s = inverse * f64::from(weight[c]);
                center[c] = mean as f32;
                scale[c] = s as f32;
                shift[c] = (f64::from(bias[c]) - (mean - f64::from(center[c])) * s) as f32;
            }
        }
        Affine { center, scale, shift }
    }
}

/// A norm as y = (x − center)·scale + shift per channel. Where x is close to the center, the subtraction is exact. The
/// form y = x·scale + shift would keep few digits if the mean is much larger than the deviation.
struct Affine {
    center: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Sums per channel, in double precision: E[x²] − E[x]² is then accurate for |mean| up to a million deviations.
struct Sums {
    values: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn of(x: &[f32], channels: usize) -> Self {
        let (mut values, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
        vectorized(
            #[inline(always)]
            || {
                for x in x.chunks_exact(channels) {
                    for ((value, square), x) in values.iter_mut().zip(&mut squares).zip(x) {
                        let x = f64::from(*x);
                        *value += x;
                        *square += x * x;
                    }
                }
            },
        );
        Self { values, squares }
    }
}

/// Group normalization by candle's operations.
fn composite(x: &Tensor, groups: usize, weight: &Tensor, bias: &Tensor, eps: f64, then: Then) -> Result<Tensor> {
    let dims = x.dims();
    let [places @ .., channels] = dims else { candle_core::bail!("group_norm: {dims:?} has no channels") };
    if places.is_empty() || groups == 0 || channels % groups != 0 {
        candle_core::bail!("group_norm: {dims:?} in {groups} groups");
    }
    // The statistics are float32: sums of many numbers of 16 bits are too rough.
    let precision = x.dtype();
    let (weight, bias) = (weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?);
    let grouped = x.to_dtype(DType::F32)?.reshape([places, &[groups, channels / groups]].concat())?;
    // Means of one dimension at a time, so that each float32 sum is short. The mean is rounded, so the centered values
    // are centered once more.
    let mean = |x: &Tensor| {
        let summed = (1..x.rank()).rev().filter(|dim| *dim != x.rank() - 2);
        summed.into_iter().try_fold(x.clone(), |x, dim| x.mean_keepdim(dim))
    };
    let centered = grouped.broadcast_sub(&mean(&grouped)?)?;
    let centered = centered.broadcast_sub(&mean(&centered)?)?;
    let variance = mean(&centered.sqr()?)?;
    let normed = centered.broadcast_div(&(variance + eps)?.sqrt()?)?.reshape(dims)?;
    let y = normed.broadcast_mul(&weight)?.broadcast_add(&bias)?;
    if then == Then::Silu { y.silu()?.to_dtype(precision) } else { y.to_dtype(precision) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    fn naive(x: &[Vec<Vec<f32>>], groups: usize, weight: &[f32], bias: &[f32], eps: f64, then: Then) -> Vec<f64> {
        let per_group = weight.len() / groups;
        let mut out = Vec::new();
        for row in x {
            for place in row {
                for (c, value) in place.iter().enumerate() {
                    let of = c / per_group * per_group..(c / per_group + 1) * per_group;
                    let all: Vec<f64> = row.iter().flat_map(|p| p[of.clone()].iter().map(|x| f64::from(*x))).collect();
                    let mean = all.iter().sum::<f64>() / all.len() as f64;
                    let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
                    let y = (f64::from(*value) - mean) / (variance + eps).sqrt() * f64::from(weight[c])
                        + f64::from(bias[c]);
                    out.push(if then == Then::Silu { y / (1.0 + (-y).exp()) } else { y });
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn like_the_definition(
            b in 1usize..3,
            places in prop_oneof![1usize..20, 250usize..300],
            groups in 1usize..5,
            per_group in 1usize..5,
            mean in -100f32..100.0,
            silu: bool,
            seed: u64,
        ) {
            let then = if silu { Then::Silu } else { Then::Nothing };
            let c = groups * per_group;
            let mut random = Random::new(seed);
            let x = random.normal(&[b, places, c], mean);
            let (weight, bias) = (random.normal(&[c], 1.0), random.normal(&[c], 0.0));
            let vector = |x: &Tensor| x.to_vec1::<f32>().unwrap();
            let expected = naive(&x.to_vec3().unwrap(), groups, &vector(&weight), &vector(&bias), 1e-5, then);
            let fused = Kernels::default().group_norm(&x, groups, &weight, &bias, 1e-5, then).unwrap();
            let composed = Kernels::REFERENCE.group_norm(&x, groups, &weight, &bias, 1e-5, then).unwrap();
            for (made, limit) in [(fused, 1e-4), (composed, 1e-3)] {
                for (made, expected) in vector(&made.flatten_all().unwrap()).iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < limit * (1.0 + expected.abs()), "{} {}", made, expected);
                }
            }
        }
    }
}
