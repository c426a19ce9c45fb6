//! Halves the size of a map, and often the number of frames.

use candle_core::{Result, Tensor};

use super::{
    causal_conv::{CausalConv, after, last_frames},
    film_state::Pasts,
};
use crate::{
    kernels::conv2d::{Conv2d, Geometry},
    models::layers::convolution,
    weights::Weights,
};

/// diffusers' `WanResample` of the modes `downsample2d` and `downsample3d`.
#[derive(Debug)]
pub(super) struct Downsampler {
    conv: Conv2d,
    time_conv: Option<CausalConv>,
}

impl Downsampler {
    pub fn new(weights: &Weights, channels: usize, in_time: bool) -> Self {
        let conv = weights.pp("resample.1");
        let (bias, geometry) = (conv.tensor("bias", &[channels]), Geometry::square_padded_at_the_end(3, 2, 1));
        let conv = convolution(&conv, channels, bias, geometry, weights.kernels().exact());
        let time = || CausalConv::over_frames(&weights.pp("time_conv"), channels, channels, 0..channels);
        Self { conv, time_conv: in_time.then(time) }
    }

    /// (F, h, w, C) → (F or F/2, h/2, w/2, C). The first piece of a film keeps its frames.
    pub async fn forward(&self, x: &Tensor, [past, _]: &mut Pasts, is_first: bool) -> Result<Tensor> {
        let x = self.conv.forward(x)?;
        let Some(time_conv) = &self.time_conv else { return Ok(x) };
        let before = past.replace(last_frames(&x, 1)?);
        if is_first { Ok(x) } else { time_conv.halved(&after(before.as_ref(), &x)?).await }
    }
}
