//! The norm of the channels of a place.

use candle_core::{Result, Tensor};

use crate::{kernels::Kernels, weights::Weights};

/// diffusers' `WanRMS_norm`: x · √C / max(|x|, 1e-12), scaled by the stored `gamma`.
#[derive(Debug)]
pub(super) struct WanRmsNorm {
    /// (C)
    gamma: Tensor,
    eps: f64,
    kernels: Kernels,
}

impl WanRmsNorm {
    /// The stored scale has the shape (C, 1, 1, 1) or, if `of_pictures` is true, (C, 1, 1).
    pub fn new(weights: &Weights, channels: usize, of_pictures: bool) -> Self {
        let stored = if of_pictures { &[channels, 1, 1][..] } else { &[channels, 1, 1, 1] };
        let gamma = weights.tensor("gamma", stored).reshape(channels);
        let gamma = gamma.expect("the weight has the requested shape");
        // diffusers bounds |x| by 1e-12 from below. Adding 1e-24 / C to the mean of the squares has about the same
        // effect.
        Self { gamma, eps: 1e-24 / channels as f64, kernels: weights.kernels() }
    }

    /// (…, C) → (…, C)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernels.rms_norm(x, &self.gamma, self.eps)
    }

    /// The norm, then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.kernels.silu(&self.forward(x)?)
    }
}
