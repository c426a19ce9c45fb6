//! Doubles the size of a map, and often the number of frames.

use candle_core::{Result, Tensor};

use super::{causal_conv::CausalConv, film_state::Pasts};
use crate::{
    kernels::{Kernels, conv2d::Conv2d},
    models::layers::inner_conv2d,
    weights::Weights,
};

/// diffusers' `WanResample` of the modes `upsample2d` and `upsample3d`.
#[derive(Debug)]
pub(super) struct Upsampler {
    /// The convolutions that make the first and the second of two frames from one frame.
    time_conv: Option<[CausalConv; 2]>,
    conv: Conv2d,
    kernels: Kernels,
}

impl Upsampler {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, in_time: bool) -> Self {
        let time = weights.pp("time_conv");
        let half = |i: usize| CausalConv::over_frames(&time, inputs, 2 * inputs, i * inputs..(i + 1) * inputs);
        Self {
            time_conv: in_time.then(|| [half(0), half(1)]),
            conv: inner_conv2d(&weights.pp("resample.1"), inputs, outputs),
            kernels: weights.kernels(),
        }
    }

    /// (F, h, w, in) → (F or 2F, 2h, 2w, out). The first piece of a film keeps its number of frames, and its frames
    /// have no effect on the second piece.
    pub async fn forward(&self, x: &Tensor, [past, _]: &mut Pasts, is_first: bool) -> Result<Tensor> {
        let (frames, h, w, c) = x.dims4()?;
        let doubled = match &self.time_conv {
            Some([first, second]) if !is_first => {
                let mut same_past = past.clone();
                let pair = [first.forward(x, past, None).await?, second.forward(x, &mut same_past, None).await?];
                Some(Tensor::stack(&pair, 1)?.reshape((2 * frames, h, w, c))?)
            }
            _ => None,
        };
        self.conv.forward(&self.kernels.nearest(doubled.as_ref().unwrap_or(x), 2 * h, 2 * w)?)
    }
}
