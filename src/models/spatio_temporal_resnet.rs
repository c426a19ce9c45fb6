//! Residual blocks of clips: one over the places of each frame, then one over the frames of each place.

use candle_core::{Result, Tensor};

use super::{
    adapters::RowAdapters,
    frames::{FrameConv, clips, learned_share},
    layers::{GroupNorm, Linear},
    pause::pause,
    resnet::{ResnetBlock2D, ResnetKind, TimeEmbeddingNorm},
};
use crate::{kernels::finish::Epilogue, weights::Weights};

/// The groups of all norms; diffusers has no setting for them.
pub(super) const GROUPS: usize = 32;

/// The parameters that the blocks of a network share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SpatioTemporalKind {
    pub eps: f64,
    pub temporal_eps: f64,
    /// Width of the time embedding; `None` in an autoencoder.
    pub time_embed_dim: Option<usize>,
    /// The result whose share is the learned factor.
    pub share_of: ShareOf,
}

/// One of the two results that are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShareOf {
    /// The result of the block over places, in a U-Net.
    Places,
    /// The result of the block over frames, in an autoencoder (`switch_spatial_to_temporal_mix`).
    Frames,
}

/// The times of a call, each as SiLU of its embedding; every block takes both forms.
#[derive(Debug)]
pub(super) struct Times {
    /// (B, E)
    pub of_clips: Tensor,
    /// (B · F, E)
    pub of_frames: Tensor,
}

/// diffusers' `SpatioTemporalResBlock`.
#[derive(Debug)]
pub(super) struct SpatioTemporalResBlock {
    spatial_res_block: ResnetBlock2D,
    temporal_res_block: TemporalResnetBlock,
}

impl SpatioTemporalResBlock {
    pub fn new(weights: &Weights, inputs: usize, outputs: usize, kind: SpatioTemporalKind) -> Self {
        let spatial = ResnetKind {
            groups: GROUPS,
            groups_out: GROUPS,
            eps: kind.eps,
            time_embed_dim: kind.time_embed_dim,
            time_embedding_norm: TimeEmbeddingNorm::Default,
            output_scale_factor: 1.0,
            separable: false,
        };
        let share = learned_share(&weights.pp("time_mixer"));
        let of_frames = match kind.share_of {
            ShareOf::Places => 1.0 - share,
            ShareOf::Frames => share,
        };
        Self {
            spatial_res_block: ResnetBlock2D::new(&weights.pp("spatial_res_block"), inputs, outputs, spatial),
            temporal_res_block: TemporalResnetBlock::new(&weights.pp("temporal_res_block"), outputs, kind, of_frames),
        }
    }

    /// x (B · F, h, w, in) → (B · F, h, w, out); times are present if the block takes them.
    pub async fn forward(&self, x: &Tensor, frames: usize, times: Option<&Times>) -> Result<Tensor> {
        let of_frames = times.map(|times| &times.of_frames);
        let x = self.spatial_res_block.forward(x, of_frames, RowAdapters::NONE).await?;
        self.temporal_res_block.forward(&x, frames, times.map(|times| &times.of_clips)).await
    }
}

/// diffusers' `TemporalResnetBlock`, mixed with its input. The mixture of x and x + y with the share s of the second is
/// x + s · y, so the weights of the last convolution are multiplied by s.
#[derive(Debug)]
struct TemporalResnetBlock {
    norm1: GroupNorm,
    conv1: FrameConv,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: FrameConv,
}

impl TemporalResnetBlock {
    fn new(weights: &Weights, channels: usize, kind: SpatioTemporalKind, share: f64) -> Self {
        let norm = |name| GroupNorm::new(&weights.pp(name), GROUPS, channels, kind.temporal_eps);
        let time = |width| Linear::new(&weights.pp("time_emb_proj"), width, channels);
        Self {
            norm1: norm("norm1"),
            conv1: FrameConv::new(&weights.pp("conv1"), channels, channels),
            time_emb_proj: kind.time_embed_dim.map(time),
            norm2: norm("norm2"),
            conv2: FrameConv::scaled(&weights.pp("conv2"), channels, channels, share),
        }
    }

    /// (B · F, h, w, C) → (B · F, h, w, C); norms are over all frames of a clip.
    async fn forward(&self, x: &Tensor, frames: usize, time: Option<&Tensor>) -> Result<Tensor> {
        pause().await;
        let (rows, h, w, c) = x.dims4()?;
        let clip = x.reshape((clips(rows, frames)?, frames, h * w, c))?;
        let time = match (&self.time_emb_proj, time) {
            (Some(projection), Some(time)) => Some(projection.forward(time)?),
            _ => None,
        };
        let epilogue = Epilogue { per_sample: time.as_ref(), ..Epilogue::default() };
        let hidden = self.conv1.forward_with(&self.norm1.forward_silu(&clip)?, epilogue)?;
        pause().await;
        let normed = self.norm2.forward_silu(&hidden)?;
        self.conv2.forward_with(&normed, Epilogue::residual(&clip))?.reshape((rows, h, w, c))
    }
}
