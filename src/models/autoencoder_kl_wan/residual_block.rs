//! Residual blocks of films.

use candle_core::{Result, Tensor};

use super::{causal_conv::CausalConv, film_state::Pasts, pointwise, rms_norm::WanRmsNorm};
use crate::{kernels::conv2d::Conv2d, weights::Weights};

/// diffusers' `WanResidualBlock`.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    norm1: WanRmsNorm,
    conv1: CausalConv,
    norm2: WanRmsNorm,
    conv2: CausalConv,
    /// Present if the width changes.
    conv_shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        let norm = |name, channels| WanRmsNorm::new(&weights.pp(name), channels, false);
        let conv = |name, inputs| CausalConv::new(&weights.pp(name), inputs, outputs, weights.kernels());
        Self {
            norm1: norm("norm1", inputs),
            conv1: conv("conv1", inputs),
            norm2: norm("norm2", outputs),
            conv2: conv("conv2", outputs),
            conv_shortcut: (inputs != outputs).then(|| pointwise(&weights.pp("conv_shortcut"), inputs, outputs)),
        }
    }

    /// (F, h, w, in) → (F, h, w, out)
    pub async fn forward(&self, x: &Tensor, [first, second]: &mut Pasts) -> Result<Tensor> {
        let hidden = self.conv1.forward(&self.norm1.forward_silu(x)?, first, None).await?;
        let hidden = self.norm2.forward_silu(&hidden)?;
        let shortcut = self.conv_shortcut.as_ref().map(|conv| conv.forward(x)).transpose()?;
        self.conv2.forward(&hidden, second, Some(shortcut.as_ref().unwrap_or(x))).await
    }
}
