//! The projection of a text encoder's states to the width of a transformer.

use candle_core::{Result, Tensor};

use super::layers::Linear;
use crate::{kernels::Kernels, weights::Weights};

/// diffusers' `PixArtAlphaTextProjection`: two linear layers with GELU (tanh approximation) between them.
#[derive(Debug)]
pub(super) struct PixArtAlphaTextProjection {
    linear_1: Linear,
    linear_2: Linear,
    kernels: Kernels,
}

impl PixArtAlphaTextProjection {
    /// From states of `inputs` channels to tokens of `width` channels.
    pub fn new(weights: &Weights, inputs: usize, width: usize) -> Self {
        Self {
            linear_1: Linear::new(&weights.pp("linear_1"), inputs, width),
            linear_2: Linear::new(&weights.pp("linear_2"), width, width),
            kernels: weights.kernels(),
        }
    }

    /// (B, L, D_text) → (B, L, D)
    pub fn forward(&self, states: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&self.kernels.gelu_tanh(&self.linear_1.forward(states)?)?)
    }
}
