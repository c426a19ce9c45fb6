//! One layer of an `AutoencoderKLWan`.

use candle_core::{DType, Result, Tensor};

use super::{
    AutoencoderKlWanConfig, FilmState,
    attention::FrameAttention,
    causal_conv::CausalConv,
    downsampler::Downsampler,
    fold::{fold, unfold},
    layer_plan::{LayerKind, LayerPlan},
    pointwise,
    residual_block::ResidualBlock,
    rms_norm::WanRmsNorm,
    shortcut::Shortcut,
    upsampler::Upsampler,
};
use crate::{device::HOST, kernels::conv2d::Conv2d, weights::Weights};

/// A layer with its weights; see [`LayerKind`].
#[derive(Debug)]
pub(super) enum Layer {
    Normalize(Normal),
    Denormalize(Normal),
    Fold(usize),
    Unfold(usize),
    Pointwise(Conv2d),
    Conv(CausalConv),
    Resnet(ResidualBlock),
    Attention(FrameAttention),
    Keep,
    Down(Downsampler),
    Up(Upsampler),
    Average(Shortcut),
    Repeat(Shortcut),
    Out { norm: WanRmsNorm, conv: CausalConv },
}

impl Layer {
    pub fn new(plan: &LayerPlan, config: &AutoencoderKlWanConfig, weights: &Weights) -> Self {
        let scope = if plan.path.is_empty() { weights.clone() } else { weights.pp(&plan.path) };
        // At both ends of a network, rounding errors must be small.
        let exact = scope.kernels().exact();
        match plan.kind {
            LayerKind::Normalize => Self::Normalize(Normal::new(config)),
            LayerKind::Denormalize => Self::Denormalize(Normal::new(config)),
            LayerKind::Fold { patch } => Self::Fold(patch),
            LayerKind::Unfold { patch } => Self::Unfold(patch),
            LayerKind::Pointwise { inputs, outputs } => Self::Pointwise(pointwise(&scope, inputs, outputs)),
            LayerKind::Conv { inputs, outputs } => Self::Conv(CausalConv::new(&scope, inputs, outputs, exact)),
            LayerKind::Resnet { inputs, outputs } => Self::Resnet(ResidualBlock::new(&scope, inputs, outputs)),
            LayerKind::Attention { channels } => Self::Attention(FrameAttention::new(&scope, channels)),
            LayerKind::Keep => Self::Keep,
            LayerKind::Down { channels, in_time } => Self::Down(Downsampler::new(&scope, channels, in_time)),
            LayerKind::Up { inputs, outputs, in_time } => Self::Up(Upsampler::new(&scope, inputs, outputs, in_time)),
            LayerKind::Average(shortcut) => Self::Average(shortcut),
            LayerKind::Repeat(shortcut) => Self::Repeat(shortcut),
            LayerKind::Out { inputs, outputs } => Self::Out {
                norm: WanRmsNorm::new(&scope.pp("norm_out"), inputs, false),
                conv: CausalConv::new(&scope.pp("conv_out"), inputs, outputs, exact),
            },
        }
    }

    /// Replaces the map of the state. `i` is the index of this layer in its network.
    pub async fn forward(&self, state: &mut FilmState, i: usize) -> Result<()> {
        let is_first = state.is_first();
        let x = state.map()?.clone();
        let y = match self {
            Self::Normalize(normal) => normal.normalized(&x)?,
            Self::Denormalize(normal) => normal.denormalized(&x)?,
            Self::Fold(patch) => fold(&x, *patch)?,
            Self::Unfold(patch) => unfold(&x.to_dtype(DType::F32)?, *patch)?.clamp(-1f32, 1f32)?,
            Self::Pointwise(conv) => conv.forward(&x)?,
            Self::Conv(conv) => conv.forward(&x, &mut state.pasts(i)[0], None).await?,
            Self::Resnet(block) => block.forward(&x, state.pasts(i)).await?,
            Self::Attention(attention) => attention.forward(&x).await?,
            Self::Keep => {
                state.kept = Some(x.clone());
                x
            }
            Self::Down(downsampler) => downsampler.forward(&x, state.pasts(i), is_first).await?,
            Self::Up(upsampler) => upsampler.forward(&x, state.pasts(i), is_first).await?,
            Self::Average(shortcut) => (x + shortcut.averages(&kept(state)?)?)?,
            Self::Repeat(shortcut) => (x + shortcut.copies(&kept(state)?, is_first)?)?,
            Self::Out { norm, conv } => conv.forward(&norm.forward_silu(&x)?, &mut state.pasts(i)[0], None).await?,
        };
        state.set(y);
        Ok(())
    }
}

fn kept(state: &mut FilmState) -> Result<Tensor> {
    state.kept.take().map_or_else(|| candle_core::bail!("a shortcut around nothing"), Ok)
}

/// The mean and the standard deviation of each channel of latents, on the host.
#[derive(Debug)]
pub(super) struct Normal {
    mean: Tensor,
    std: Tensor,
}

impl Normal {
    fn new(config: &AutoencoderKlWanConfig) -> Self {
        let vector = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            Tensor::from_vec(values, config.z_dim, &HOST).expect("one value per channel")
        };
        Self { mean: vector(&config.latents_mean), std: vector(&config.latents_std) }
    }

    /// Moments (f, h, w, 2C) → normalized means (f, h, w, C)
    fn normalized(&self, moments: &Tensor) -> Result<Tensor> {
        let means = moments.to_dtype(DType::F32)?.narrow(3, 0, self.mean.elem_count())?;
        let [mean, std] = [&self.mean, &self.std].map(|vector| vector.to_device(moments.device()));
        means.broadcast_sub(&mean?)?.broadcast_div(&std?)
    }

    /// Normalized latents (f, h, w, C) → latents
    fn denormalized(&self, latents: &Tensor) -> Result<Tensor> {
        let [mean, std] = [&self.mean, &self.std].map(|vector| vector.to_device(latents.device()));
        latents.broadcast_mul(&std?)?.broadcast_add(&mean?)
    }
}
