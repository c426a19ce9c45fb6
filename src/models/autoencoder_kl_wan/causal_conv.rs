//! Convolutions of a frame with the two frames before it.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::{
    kernels::{
        Kernels,
        conv2d::{Conv2d, Geometry},
        finish::Epilogue,
    },
    models::pause::pause,
    weights::Weights,
};

/// diffusers' `WanCausalConv3d` with a kernel of three frames: the sum of three convolutions of one frame. Before the
/// first frame of a film, frames are zeros.
#[derive(Debug)]
pub(super) struct CausalConv {
    /// For the frame two before, the frame before, and the frame itself.
    taps: [Conv2d; 3],
}

/// The frames of a kernel.
const TAPS: usize = 3;

impl CausalConv {
    /// A kernel of 3 × 3 × 3, which keeps the size of the map.
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kernels: Kernels) -> Self {
        Self::part(weights, inputs, outputs, 0..outputs, Geometry::square(3, 1, 1), kernels)
    }

    /// A kernel of three frames and one place. The file has `outputs` output channels; this convolution computes the
    /// output channels in `part`.
    pub fn over_frames(weights: &Weights, inputs: usize, outputs: usize, part: Range<usize>) -> Self {
        Self::part(weights, inputs, outputs, part, Geometry::square(1, 1, 0), weights.kernels().exact())
    }

    fn part(
        weights: &Weights,
        inputs: usize,
        outputs: usize,
        part: Range<usize>,
        geometry: Geometry,
        kernels: Kernels,
    ) -> Self {
        let (kh, kw) = geometry.kernel;
        let (whole, bias) =
            (weights.conv3d("weight", outputs, inputs, [TAPS, kh, kw]), weights.tensor("bias", &[outputs]));
        let (lines, none) = (kh * kw * inputs, weights.zeros(&[part.len()]));
        let tap = |tap: usize| {
            let weight = whole.narrow(0, tap * lines, lines)?.narrow(1, part.start, part.len())?;
            // A tensor that is not contiguous is a placeholder that needs no memory.
            let weight = if whole.is_contiguous() { weight.contiguous()? } else { weight };
            let of_part = bias.narrow(0, part.start, part.len())?;
            Conv2d::new(&weight, if tap + 1 == TAPS { &of_part } else { &none }, geometry, kernels)
        };
        Self { taps: [0, 1, 2].map(|i| tap(i).expect("the weights have the requested shapes")) }
    }

    /// x (F, h, w, in) → (F, h, w, out), plus `residual`. `past` has the last frames before x, at most two; afterwards
    /// it has the last frames of x.
    pub async fn forward(&self, x: &Tensor, past: &mut Option<Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
        let frames = x.dim(0)?;
        let mut all = after(past.as_ref(), x)?;
        *past = Some(last_frames(&all, TAPS - 1)?);
        let mut missing = (TAPS - 1 + frames).saturating_sub(all.dim(0)?);
        if missing > 0 && frames > 1 {
            all = all.pad_with_zeros(0, missing, 0)?;
            missing = 0;
        }
        // Zeros before a single frame add nothing to its sum.
        let mut sum = residual.cloned();
        for tap in (missing..TAPS).rev() {
            pause().await;
            sum = Some(self.tap(tap, &all.narrow(0, tap - missing, frames)?, sum.as_ref())?);
        }
        sum.map_or_else(|| candle_core::bail!("no frames"), Ok)
    }

    /// The convolution at every second frame, without zeros: x (F, h, w, in) → ((F − 1) / 2, h, w, out).
    pub async fn halved(&self, x: &Tensor) -> Result<Tensor> {
        let mut halves = Vec::new();
        for first in (0..(x.dim(0)?).saturating_sub(TAPS - 1)).step_by(2) {
            let mut sum = None;
            for tap in (0..TAPS).rev() {
                pause().await;
                sum = Some(self.tap(tap, &x.narrow(0, first + tap, 1)?, sum.as_ref())?);
            }
            halves.extend(sum);
        }
        Tensor::cat(&halves, 0)
    }

    fn tap(&self, tap: usize, x: &Tensor, sum: Option<&Tensor>) -> Result<Tensor> {
        self.taps[tap].forward_with(x, Epilogue { residual: sum, ..Epilogue::default() })
    }
}

/// The frames of `past`, if there are any, and then the frames of x.
pub(super) fn after(past: Option<&Tensor>, x: &Tensor) -> Result<Tensor> {
    past.map_or_else(|| x.contiguous(), |past| Tensor::cat(&[past, x], 0))
}

/// The last `most` frames of x, or all if there are fewer. They share no memory with the others.
pub(super) fn last_frames(x: &Tensor, most: usize) -> Result<Tensor> {
    let frames = x.dim(0)?;
    match frames.checked_sub(most) {
        None | Some(0) => Ok(x.clone()),
        Some(first) => x.narrow(0, first, most)?.force_contiguous(),
    }
}
