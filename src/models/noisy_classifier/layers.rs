//! Differentiable layers for one row. Channels come first, as in candle's convolutions.

use candle_core::{Result, Tensor};
use candle_nn::ops::softmax;

use super::NoisyClassifierConfig;
use crate::weights::Weights;

/// y = x·Wᵀ + b
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self { weight: weights.matrix("weight", outputs, inputs), bias: weights.tensor("bias", &[outputs]) }
    }

    /// (1, in) → (1, out)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.contiguous()?)?.broadcast_add(&self.bias)
    }
}

/// A convolution of a sequence with kernel size 1.
#[derive(Debug)]
struct Pointwise {
    weight: Tensor,
    bias: Tensor,
}

impl Pointwise {
    fn new(weights: &Weights, inputs: usize, outputs: usize) -> Self {
        Self { weight: weights.tensor("weight", &[outputs, inputs, 1]), bias: weights.tensor("bias", &[outputs]) }
    }

    /// (in, N) → (out, N)
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.weight.contiguous()?.squeeze(2)?.matmul(x)?.broadcast_add(&self.bias.unsqueeze(1)?)
    }
}

/// A square convolution with zero padding of half the kernel's size.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
}

impl Conv {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        let weight = weights.tensor("weight", &[outputs, inputs, kernel, kernel]);
        Self { weight, bias: weights.tensor("bias", &[outputs]), stride }
    }

    /// (1, in, H, W) → (1, out, H / stride, W / stride)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, padding) = (self.bias.elem_count(), self.weight.dim(2)? / 2);
        let y = x.conv2d(&self.weight.contiguous()?, padding, self.stride, 1, 1)?;
        y.broadcast_add(&self.bias.reshape((1, outputs, 1, 1))?)
    }
}

/// Group normalization of (1, C, …).
#[derive(Debug)]
pub(super) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
}

impl GroupNorm {
    const EPS: f64 = 1e-5;

    pub fn new(weights: &Weights, groups: usize, channels: usize) -> Self {
        Self { weight: weights.tensor("weight", &[channels]), bias: weights.tensor("bias", &[channels]), groups }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels = x.dim(1)?;
        let grouped = x.reshape((self.groups, ()))?;
        let centered = grouped.broadcast_sub(&grouped.mean_keepdim(1)?)?;
        let deviation = (centered.sqr()?.mean_keepdim(1)? + Self::EPS)?.sqrt()?;
        let normed = centered.broadcast_div(&deviation)?.reshape((channels, ()))?;
        let scaled = normed.broadcast_mul(&self.weight.unsqueeze(1)?)?.broadcast_add(&self.bias.unsqueeze(1)?)?;
        scaled.reshape(x.shape())
    }
}

/// A residual block: two convolutions, between which the embedding of the time acts.
#[derive(Debug)]
pub(super) struct ResBlock {
    norm_in: GroupNorm,
    conv_in: Conv,
    emb_layers: Linear,
    norm_out: GroupNorm,
    conv_out: Conv,
    skip_connection: Option<Conv>,
    /// Whether the embedding scales and shifts; otherwise it is added.
    scale_shift: bool,
    /// Whether the block halves the side, between the activation and the first convolution.
    down: bool,
}

impl ResBlock {
    pub fn new(weights: &Weights, config: &NoisyClassifierConfig, inputs: usize, outputs: usize, down: bool) -> Self {
        let (groups, scale_shift) = (config.norm_num_groups, config.use_scale_shift_norm);
        let projected_width = if scale_shift { 2 * outputs } else { outputs };
        Self {
            norm_in: GroupNorm::new(&weights.pp("in_layers.0"), groups, inputs),
            conv_in: Conv::new(&weights.pp("in_layers.2"), inputs, outputs, 3, 1),
            emb_layers: Linear::new(&weights.pp("emb_layers.1"), 4 * config.model_channels, projected_width),
            norm_out: GroupNorm::new(&weights.pp("out_layers.0"), groups, outputs),
            conv_out: Conv::new(&weights.pp("out_layers.3"), outputs, outputs, 3, 1),
            skip_connection: (inputs != outputs)
                .then(|| Conv::new(&weights.pp("skip_connection"), inputs, outputs, 1, 1)),
            scale_shift,
            down,
        }
    }

    /// x (1, in, H, W), SiLU of the embedding of the time (1, E) → (1, out, H, W), or half as high and wide if `down`
    pub fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let mut h = self.norm_in.forward(x)?.silu()?;
        let mut x = x.clone();
        if self.down {
            (h, x) = (h.avg_pool2d(2)?, x.avg_pool2d(2)?);
        }
        let h = self.conv_in.forward(&h)?;
        let projected = self.emb_layers.forward(embedding)?.unsqueeze(2)?.unsqueeze(3)?;
        let h = if self.scale_shift {
            let half = projected.dim(1)? / 2;
            let (scale, shift) = (projected.narrow(1, 0, half)?, projected.narrow(1, half, half)?);
            self.norm_out.forward(&h)?.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(&shift)?
        } else {
            self.norm_out.forward(&h.broadcast_add(&projected)?)?
        };
        let h = self.conv_out.forward(&h.silu()?)?;
        match &self.skip_connection {
            Some(skip) => skip.forward(&x)? + h,
            None => x + h,
        }
    }
}

/// Self-attention of all pixels.
#[derive(Debug)]
pub(super) struct AttentionBlock {
    norm: GroupNorm,
    qkv: Pointwise,
    proj_out: Pointwise,
    heads: usize,
}

impl AttentionBlock {
    pub fn new(weights: &Weights, config: &NoisyClassifierConfig, channels: usize) -> Self {
        Self {
            norm: GroupNorm::new(&weights.pp("norm"), config.norm_num_groups, channels),
            qkv: Pointwise::new(&weights.pp("qkv"), channels, 3 * channels),
            proj_out: Pointwise::new(&weights.pp("proj_out"), channels, channels),
            heads: channels / config.num_head_channels,
        }
    }

    /// (1, C, H, W) → (1, C, H, W)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels = x.dim(1)?;
        let normed = self.norm.forward(x)?.reshape((channels, ()))?;
        // The order of the channels: queries, keys and values of the first head, then of the second head, and so on.
        let qkv = self.qkv.forward(&normed)?.reshape((self.heads, 3, channels / self.heads, ()))?;
        let part = |i| qkv.narrow(1, i, 1)?.squeeze(1)?.contiguous();
        let attended = attend(&part(0)?, &part(1)?, &part(2)?)?;
        x + self.proj_out.forward(&attended)?.reshape(x.shape())?
    }
}

/// Attention pooling: a token with the mean of all pixels attends to itself and to all pixels. The output of this
/// token gives the logits.
#[derive(Debug)]
pub(super) struct AttentionPool {
    positional_embedding: Tensor,
    qkv_proj: Pointwise,
    c_proj: Pointwise,
    heads: usize,
}

impl AttentionPool {
    pub fn new(weights: &Weights, config: &NoisyClassifierConfig, side: usize, channels: usize) -> Self {
        Self {
            positional_embedding: weights.tensor("positional_embedding", &[channels, side * side + 1]),
            qkv_proj: Pointwise::new(&weights.pp("qkv_proj"), channels, 3 * channels),
            c_proj: Pointwise::new(&weights.pp("c_proj"), channels, config.num_classes),
            heads: channels / config.num_head_channels,
        }
    }

    /// (1, C, H, W) → (1, K)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels = x.dim(1)?;
        let x = x.reshape((channels, ()))?;
        let x = (Tensor::cat(&[&x.mean_keepdim(1)?, &x], 1)? + &self.positional_embedding)?;
        // The order of the channels: the queries of all heads, then all keys, then all values.
        let qkv = self.qkv_proj.forward(&x)?.reshape((3, self.heads, channels / self.heads, ()))?;
        let part = |i| qkv.narrow(0, i, 1)?.squeeze(0)?.contiguous();
        let attended = attend(&part(0)?.narrow(2, 0, 1)?.contiguous()?, &part(1)?, &part(2)?)?;
        self.c_proj.forward(&attended)?.t()?.contiguous()
    }
}

/// q (heads, d, N), k and v (heads, d, M) → (heads · d, N)
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (heads, d, n) = q.dims3()?;
    let scale = 1.0 / libm::sqrt(libm::sqrt(d as f64));
    let scores = (q * scale)?.transpose(1, 2)?.contiguous()?.matmul(&(k * scale)?)?;
    let weights = softmax(&scores, 2)?;
    v.matmul(&weights.transpose(1, 2)?.contiguous()?)?.reshape((heads * d, n))
}
