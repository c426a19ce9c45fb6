//! Resamples maps to half or twice their size, without weights.

use candle_core::{Result, Tensor};

use crate::kernels::Kernels;

/// A way of resampling: (B, h, w, C) → (B, h/2, w/2, C) or (B, 2h, 2w, C).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resample {
    /// Averages of 2 × 2 places: diffusers' `Downsample2D` without a convolution.
    AvgPool,
    /// Repeats each place 2 × 2 times: diffusers' `Upsample2D` without a convolution.
    Nearest,
    /// Halves the size with the filter (1, 3, 3, 1): diffusers' `FirDownsample2D`.
    FirDown,
    /// Doubles the size with the filter (1, 3, 3, 1): diffusers' `FirUpsample2D`.
    FirUp,
}

impl Resample {
    /// Whether a residual block with this resampling has a convolution on its shortcut even if its width stays the
    /// same.
    pub fn has_shortcut(self) -> bool {
        matches!(self, Self::FirDown | Self::FirUp)
    }

    pub fn forward(self, kernels: Kernels, x: &Tensor) -> Result<Tensor> {
        let (_, h, w, _) = x.dims4()?;
        match self {
            Self::AvgPool => avg_pool(x),
            Self::Nearest => kernels.nearest(x, 2 * h, 2 * w),
            Self::FirDown => fir_down(&fir_down(x, 1)?, 2)?.contiguous(),
            Self::FirUp => fir_up(&fir_up(x, 1)?, 2)?.contiguous(),
        }
    }
}

/// The average of every 2 × 2 places.
fn avg_pool(x: &Tensor) -> Result<Tensor> {
    let halved = |x: &Tensor, axis| {
        let (even, odd) = pairs(x, axis)?;
        even + odd
    };
    halved(&halved(x, 1)?, 2)?.affine(0.25, 0.0)
}

/// Along one axis of even length n, with a zero before and after: y[i] = (x[2i − 1] + 3 x[2i] + 3 x[2i + 1] +
/// x[2i + 2]) / 8.
fn fir_down(x: &Tensor, axis: usize) -> Result<Tensor> {
    let half = x.dim(axis)? / 2;
    let (before, after) = pairs(&x.pad_with_zeros(axis, 1, 1)?, axis)?;
    let outer = (before.narrow(axis, 0, half)? + after.narrow(axis, 1, half)?)?;
    let inner = (after.narrow(axis, 0, half)? + before.narrow(axis, 1, half)?)?;
    (outer + inner.affine(3.0, 0.0)?)?.affine(0.125, 0.0)
}

/// Along one axis, with a zero before and after: y[2i] = (x[i − 1] + 3 x[i]) / 4, y[2i + 1] = (3 x[i] + x[i + 1]) / 4.
fn fir_up(x: &Tensor, axis: usize) -> Result<Tensor> {
    let n = x.dim(axis)?;
    let padded = x.pad_with_zeros(axis, 1, 1)?;
    let near = x.affine(0.75, 0.0)?;
    let far = |start| padded.narrow(axis, start, n)?.affine(0.25, 0.0);
    let mut dims = x.dims().to_vec();
    dims[axis] = 2 * n;
    Tensor::stack(&[(&near + far(0)?)?, (&near + far(2)?)?], axis + 1)?.reshape(dims)
}

/// The places with even and with odd index along an axis of even length.
fn pairs(x: &Tensor, axis: usize) -> Result<(Tensor, Tensor)> {
    let mut dims = x.dims().to_vec();
    if !dims[axis].is_multiple_of(2) {
        candle_core::bail!("cannot halve an odd size: {dims:?}");
    }
    dims[axis] /= 2;
    dims.insert(axis + 1, 2);
    let x = x.contiguous()?.reshape(dims)?;
    let part = |i| x.narrow(axis + 1, i, 1)?.squeeze(axis + 1)?.contiguous();
    Ok((part(0)?, part(1)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::random::Random;

    /// Computes the 4 × 4 filter by its definition: inserts zeros between the places and around them, sums 16 taps, and
    /// keeps every `down`-th place.
    fn by_definition(x: &[f32], [h, w]: [usize; 2], up: usize, down: usize, before: usize) -> Vec<f64> {
        let taps = [1.0, 3.0, 3.0, 1.0].map(|tap| tap / 8.0 * up as f64);
        let stuffed = |y: usize, x_: usize| {
            let (y, x_) = (y.checked_sub(before)?, x_.checked_sub(before)?);
            let is_place = y < h * up && x_ < w * up && y.is_multiple_of(up) && x_.is_multiple_of(up);
            is_place.then(|| f64::from(x[y / up * w + x_ / up]))
        };
        let (height, width) = (h * up / down, w * up / down);
        let places = (0..height * width).map(|i| (i / width * down, i % width * down));
        let sum = |(y, x): (usize, usize)| {
            let tap = |i: usize| taps[i / 4] * taps[i % 4] * stuffed(y + i / 4, x + i % 4).unwrap_or(0.0);
            (0..16).map(tap).sum()
        };
        places.map(sum).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn filters_are_their_definitions(h in 1usize..6, w in 1usize..6, seed: u64) {
            let x = Random::new(seed).normal(&[1, 2 * h, 2 * w, 1], 0.0);
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (resample, up, down, before) in [(Resample::FirDown, 1, 2, 1), (Resample::FirUp, 2, 1, 2)] {
                let expected = by_definition(&flat(&x), [2 * h, 2 * w], up, down, before);
                let made = flat(&resample.forward(Kernels::default(), &x).unwrap());
                prop_assert_eq!(made.len(), expected.len());
                for (made, expected) in made.iter().zip(&expected) {
                    prop_assert!((f64::from(*made) - expected).abs() < 1e-5, "{:?}: {} {}", resample, made, expected);
                }
            }
        }

        #[test]
        fn averages_undo_doubling(b in 1usize..3, h in 1usize..5, w in 1usize..5, c in 1usize..4, seed: u64) {
            let x = Random::new(seed).normal(&[b, h, w, c], 0.0);
            for kernels in [Kernels::default(), Kernels::REFERENCE] {
                let doubled = Resample::Nearest.forward(kernels, &x).unwrap();
                let back = Resample::AvgPool.forward(kernels, &doubled).unwrap();
                prop_assert_eq!(back.dims(), x.dims());
                let error = (back - &x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                prop_assert_eq!(error, 0.0);
            }
        }
    }

    #[test]
    fn an_odd_size_is_an_error() {
        let x = Random::new(1).normal(&[1, 3, 4, 1], 0.0);
        let fails = |resample: Resample| resample.forward(Kernels::default(), &x).is_err();
        assert!(fails(Resample::AvgPool) && fails(Resample::FirDown));
    }
}
