//! Residual blocks, and layers that halve or double a map with a convolution.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    adapters::RowAdapters,
    layers::{Conv, GroupNorm, Linear},
    pause::pause,
    resample::Resample,
};
use crate::{
    kernels::{Kernels, conv2d::Geometry, finish::Epilogue},
    weights::Weights,
};

/// The parameters that the residual blocks of a network share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResnetKind {
    pub groups: usize,
    /// Groups of the second norm.
    pub groups_out: usize,
    pub eps: f64,
    /// Width of the time embedding; `None` in an autoencoder.
    pub time_embed_dim: Option<usize>,
    pub time_embedding_norm: TimeEmbeddingNorm,
    /// The sum of block and shortcut is divided by this factor.
    pub output_scale_factor: f64,
    /// Whether the convolutions are depthwise-separable, and the map between them has twice the width of the output.
    pub separable: bool,
}

/// How the time embedding acts on a residual block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbeddingNorm {
    /// The projected embedding is added before the second norm.
    #[default]
    Default,
    /// The projected embedding scales and shifts the output of the second norm.
    ScaleShift,
}

/// diffusers' `ResnetBlock2D`.
#[derive(Debug)]
pub(super) struct ResnetBlock2D {
    norm1: GroupNorm,
    resample: Option<Resample>,
    conv1: Convolution,
    time_emb_proj: Option<Linear>,
    time_embedding_norm: TimeEmbeddingNorm,
    norm2: GroupNorm,
    conv2: Convolution,
    conv_shortcut: Option<Linear>,
    output_scale_factor: f64,
    kernels: Kernels,
}

impl ResnetBlock2D {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kind: ResnetKind) -> Self {
        Self::of(weights, [inputs, outputs], kind, None)
    }

    /// A block that also resamples the map, between its first norm and its first convolution.
    pub fn resampling(weights: &Weights, channels: usize, kind: ResnetKind, resample: Resample) -> Self {
        Self::of(weights, [channels, channels], kind, Some(resample))
    }

    fn of(weights: &Weights, [inputs, outputs]: [usize; 2], kind: ResnetKind, resample: Option<Resample>) -> Self {
        let ResnetKind { groups, groups_out, eps, time_embed_dim, time_embedding_norm, .. } = kind;
        let inner = if kind.separable { 2 * outputs } else { outputs };
        let time_outputs = match time_embedding_norm {
            TimeEmbeddingNorm::Default => inner,
            TimeEmbeddingNorm::ScaleShift => 2 * inner,
        };
        let conv = |name, inputs, outputs| Convolution::new(&weights.pp(name), inputs, outputs, kind.separable);
        let has_shortcut = inputs != outputs || resample.is_some_and(Resample::has_shortcut);
        Self {
            norm1: GroupNorm::new(&weights.pp("norm1"), groups, inputs, eps),
            resample,
            conv1: conv("conv1", inputs, inner),
            time_emb_proj: time_embed_dim.map(|width| Linear::new(&weights.pp("time_emb_proj"), width, time_outputs)),
            time_embedding_norm,
            norm2: GroupNorm::new(&weights.pp("norm2"), groups_out, inner, eps),
            conv2: conv("conv2", inner, outputs),
            conv_shortcut: has_shortcut.then(|| Linear::pointwise(&weights.pp("conv_shortcut"), inputs, outputs)),
            output_scale_factor: kind.output_scale_factor,
            kernels: weights.kernels(),
        }
    }

    /// x (B, h, w, in), and SiLU of the time embedding (B, E) if the block takes one → (B, h, w, out), resampled if the
    /// block resamples
    pub async fn forward(&self, x: &Tensor, time: Option<&Tensor>, adapters: &RowAdapters) -> Result<Tensor> {
        pause().await;
        let time = match (&self.time_emb_proj, time) {
            (Some(projection), Some(time)) => Some(projection.adapted(time, adapters)?),
            _ => None,
        };
        let normed = self.norm1.forward_silu(x)?;
        let (normed, resampled) = match self.resample {
            Some(resample) => (resample.forward(self.kernels, &normed)?, Some(resample.forward(self.kernels, x)?)),
            None => (normed, None),
        };
        let x = resampled.as_ref().unwrap_or(x);
        let hidden = match (self.time_embedding_norm, &time) {
            (TimeEmbeddingNorm::ScaleShift, Some(time)) => {
                let hidden = self.conv1.adapted_with(&normed, Epilogue::default(), adapters)?;
                pause().await;
                self.kernels.silu(&scaled_and_shifted(&self.norm2.forward(&hidden)?, time)?)?
            }
            (_, time) => {
                let epilogue = Epilogue { per_sample: time.as_ref(), ..Epilogue::default() };
                let hidden = self.conv1.adapted_with(&normed, epilogue, adapters)?;
                pause().await;
                self.norm2.forward_silu(&hidden)?
            }
        };
        let sum = match &self.conv_shortcut {
            Some(shortcut) => {
                let x = shortcut.adapted(x, adapters)?;
                self.conv2.adapted_with(&hidden, Epilogue::residual(&x), adapters)?
            }
            None => self.conv2.adapted_with(&hidden, Epilogue::residual(x), adapters)?,
        };
        if self.output_scale_factor == 1.0 { Ok(sum) } else { sum / self.output_scale_factor }
    }
}

/// A 3 × 3 convolution that keeps the size of the map.
#[derive(Debug)]
enum Convolution {
    Whole(Conv),
    /// diffusers' `DepthwiseSeparableConv`: each channel by a kernel of its own (9, C), then a mixture of the channels
    /// (Howard et al. 2017, arXiv:1704.04861). Adapters do not change it.
    Separable {
        depthwise: Tensor,
        pointwise: Linear,
        kernels: Kernels,
    },
}

impl Convolution {
    fn new(weights: &Weights, inputs: usize, outputs: usize, separable: bool) -> Self {
        match separable {
            false => Self::Whole(Conv::inner(weights, inputs, outputs)),
            true => Self::Separable {
                depthwise: weights.pp("depthwise").conv2d("weight", inputs, 1, (3, 3)),
                pointwise: Linear::pointwise_without_bias(&weights.pp("pointwise"), inputs, outputs),
                kernels: weights.kernels(),
            },
        }
    }

    fn adapted_with(&self, x: &Tensor, epilogue: Epilogue<'_>, adapters: &RowAdapters) -> Result<Tensor> {
        match self {
            Self::Whole(conv) => conv.adapted_with(x, epilogue, adapters),
            Self::Separable { depthwise, pointwise, kernels } => {
                pointwise.forward_finished(&kernels.depthwise(x, depthwise)?, epilogue)
            }
        }
    }
}

/// x (B, h, w, C), time (B, 2C) → (B, h, w, C): the first half of `time` scales each channel, the second half shifts
/// it.
fn scaled_and_shifted(x: &Tensor, time: &Tensor) -> Result<Tensor> {
    let (b, _, _, c) = x.dims4()?;
    let part = |i| time.narrow(1, i * c, c)?.reshape((b, 1, 1, c));
    x.broadcast_mul(&(part(0)? + 1.0)?)?.broadcast_add(&part(1)?)
}

/// diffusers' `Downsample2D` with a convolution: halves the size.
#[derive(Debug)]
pub(super) struct Downsample2D(Conv);

impl Downsample2D {
    /// Padding 0 adds one line of zeros below and to the right; half of an odd size is then rounded down. Padding 1
    /// adds zeros on all four sides; half of an odd size is then rounded up.
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

/// diffusers' `Upsample2D` with a convolution: nearest-neighbor interpolation, then the convolution.
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
