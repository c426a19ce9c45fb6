use candle_core::{Result, Tensor};

use super::layers::{GroupNorm, Linear, conv2d, conv2d_of};
use crate::{
    kernels::{
        add::{add, add_channels},
        conv2d::{Conv2d, Geometry},
        upsample,
    },
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
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Linear>,
    output_scale_factor: f64,
}

impl ResnetBlock2D {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kind: ResnetKind) -> Self {
        let ResnetKind { groups, eps, time_embed_dim, output_scale_factor } = kind;
        Self {
            norm1: GroupNorm::new(&weights.pp("norm1"), groups, inputs, eps),
            conv1: conv2d(&weights.pp("conv1"), inputs, outputs, 3, 1, 1),
            time_emb_proj: time_embed_dim.map(|width| Linear::new(&weights.pp("time_emb_proj"), width, outputs)),
            norm2: GroupNorm::new(&weights.pp("norm2"), groups, outputs, eps),
            conv2: conv2d(&weights.pp("conv2"), outputs, outputs, 3, 1, 1),
            conv_shortcut: (inputs != outputs)
                .then(|| Linear::pointwise(&weights.pp("conv_shortcut"), inputs, outputs)),
            output_scale_factor,
        }
    }

    /// x (B, h, w, in), and SiLU of the time embedding (B, E) where the block has a place for it → (B, h, w, out)
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let mut hidden = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        if let (Some(projection), Some(time)) = (&self.time_emb_proj, time) {
            hidden = add_channels(hidden, &projection.forward(time)?)?;
        }
        let hidden = self.conv2.forward(&self.norm2.forward_silu(&hidden)?)?;
        let sum = match &self.conv_shortcut {
            Some(shortcut) => add(hidden, &shortcut.forward(x)?)?,
            None => add(hidden, x)?,
        };
        if self.output_scale_factor == 1.0 { Ok(sum) } else { sum / self.output_scale_factor }
    }
}

/// diffusers' `Downsample2D` with a convolution: half the size, rounded up.
#[derive(Debug)]
pub(super) struct Downsample2D(Conv2d);

impl Downsample2D {
    /// Padding 0 means one line of zeros below and to the right.
    pub fn new(weights: &Weights, channels: usize, padding: usize) -> Self {
        let geometry = match padding {
            0 => Geometry::square_padded_at_the_end(3, 2, 1),
            _ => Geometry::square(3, 2, padding),
        };
        Self(conv2d_of(&weights.pp("conv"), channels, channels, geometry))
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// diffusers' `Upsample2D` with a convolution.
#[derive(Debug)]
pub(super) struct Upsample2D(Conv2d);

impl Upsample2D {
    pub fn new(weights: &Weights, channels: usize) -> Self {
        Self(conv2d(&weights.pp("conv"), channels, channels, 3, 1, 1))
    }

    /// (B, h, w, C) → (B, height, width, C)
    pub fn forward(&self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        self.0.forward(&upsample::nearest(x, height, width)?)
    }
}
