use candle_core::{Result, Tensor};

use super::{
    adapters::RowAdapters,
    layers::{Conv, GroupNorm, Linear},
    pause::pause,
};
use crate::{
    kernels::{Kernels, conv2d::Geometry, finish::Onto},
    weights::Weights,
};

/// What the residual blocks of a network have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResnetKind {
    pub groups: usize,
    pub eps: f64,
    /// Width of the time embedding; None in an autoencoder.
    pub time_embed_dim: Option<usize>,
    /// The sum is divided by this.
    pub output_scale_factor: f64,
}

/// diffusers' `ResnetBlock2D` with `time_embedding_norm = "default"`.
#[derive(Debug)]
pub(super) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv,
    conv_shortcut: Option<Linear>,
    output_scale_factor: f64,
}

impl ResnetBlock2D {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kind: ResnetKind) -> Self {
        let ResnetKind { groups, eps, time_embed_dim, output_scale_factor } = kind;
        Self {
            norm1: GroupNorm::new(&weights.pp("norm1"), groups, inputs, eps),
            conv1: Conv::inner(&weights.pp("conv1"), inputs, outputs),
            time_emb_proj: time_embed_dim.map(|width| Linear::new(&weights.pp("time_emb_proj"), width, outputs)),
            norm2: GroupNorm::new(&weights.pp("norm2"), groups, outputs, eps),
            conv2: Conv::inner(&weights.pp("conv2"), outputs, outputs),
            conv_shortcut: (inputs != outputs)
                .then(|| Linear::pointwise(&weights.pp("conv_shortcut"), inputs, outputs)),
            output_scale_factor,
        }
    }

    /// x (B, h, w, in), and SiLU of the time embedding (B, E) where the block has a place for it → (B, h, w, out)
    pub async fn forward(&self, x: &Tensor, time: Option<&Tensor>, adapters: &RowAdapters) -> Result<Tensor> {
        pause().await;
        let time = match (&self.time_emb_proj, time) {
            (Some(projection), Some(time)) => Some(projection.adapted(time, adapters)?),
            _ => None,
        };
        let onto = Onto { rows: time.as_ref(), residual: None };
        let hidden = self.conv1.adapted_onto(&self.norm1.forward_silu(x)?, onto, adapters)?;
        pause().await;
        let hidden = self.norm2.forward_silu(&hidden)?;
        let sum = match &self.conv_shortcut {
            Some(shortcut) => {
                let x = shortcut.adapted(x, adapters)?;
                self.conv2.adapted_onto(&hidden, Onto::residual(&x), adapters)?
            }
            None => self.conv2.adapted_onto(&hidden, Onto::residual(x), adapters)?,
        };
        if self.output_scale_factor == 1.0 { Ok(sum) } else { sum / self.output_scale_factor }
    }
}

/// diffusers' `Downsample2D` with a convolution: half the size, rounded up.
#[derive(Debug)]
pub(super) struct Downsample2D(Conv);

impl Downsample2D {
    /// Padding 0 means one line of zeros below and to the right.
    pub fn new(weights: &Weights, channels: usize, padding: usize) -> Self {
        let geometry = match padding {
            0 => Geometry::square_padded_at_the_end(3, 2, 1),
            _ => Geometry::square(3, 2, padding),
        };
        Self(Conv::of(&weights.pp("conv"), channels, channels, geometry, weights.kernels().exact()))
    }

    pub fn forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        self.0.adapted(x, adapters)
    }
}

/// diffusers' `Upsample2D` with a convolution.
#[derive(Debug)]
pub(super) struct Upsample2D {
    conv: Conv,
    kernels: Kernels,
}

impl Upsample2D {
    pub fn new(weights: &Weights, channels: usize) -> Self {
        Self { conv: Conv::inner(&weights.pp("conv"), channels, channels), kernels: weights.kernels() }
    }

    /// (B, h, w, C) → (B, height, width, C)
    pub fn forward(&self, x: &Tensor, height: usize, width: usize, adapters: &RowAdapters) -> Result<Tensor> {
        self.conv.adapted(&self.kernels.nearest(x, height, width)?, adapters)
    }
}
