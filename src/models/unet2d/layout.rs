//! The layers of each block and their sizes. The blocks are built from them, the configuration is checked with them,
//! and the demand is computed from them.

use super::configuration::{DownBlockType, ResampleType, UNet2DConfig, UpBlockType, groups_of};
use crate::models::{
    resample::Resample,
    resnet::{ResnetKind, TimeEmbeddingNorm},
    spatial_attention::SpatialAttentionKind,
};

/// A block on the way down, in the middle, or on the way up.
pub(super) struct Block {
    pub resnets: Vec<Layer>,
    pub outputs: usize,
    /// The attentions. A down or up block has an attention after each resnet, only after the last resnet, or none. The
    /// middle block has one after its first resnet, or none.
    pub attentions: Vec<SpatialAttentionKind>,
    /// The layers at the end of the block that change the size of the map.
    pub resampler: Option<Resampler>,
    /// Whether the block also has a skip image: a picture that goes from block to block in addition to the map. Like
    /// the map, the picture is halved or doubled, but without weights.
    pub has_skip_image: bool,
}

/// A residual block.
pub(super) struct Layer {
    pub inputs: usize,
    pub kind: ResnetKind,
}

/// Layers that change the size of a map.
#[derive(Clone, Copy)]
pub(super) enum Resampler {
    Conv,
    Resnet(Resample, ResnetKind),
}

/// In blocks with a skip image, the sums of the residual blocks and of the attentions are divided by this factor.
const SKIP_SCALE: f64 = std::f64::consts::SQRT_2;

/// The number of groups of each norm before an attention in a block with a skip image. It is the same for blocks of
/// every width.
const SKIP_ATTENTION_GROUPS: usize = 32;

impl UNet2DConfig {
    /// Block `i`, counted from the input.
    pub(super) fn down(&self, i: usize) -> Block {
        use DownBlockType::*;
        let channels = &self.block_out_channels;
        let (block, outputs) = (self.down_block_types[i], channels[i]);
        let skips = block.has_skip_image();
        let layer = |j| {
            let inputs = if j == 0 { channels[i.saturating_sub(1)] } else { outputs };
            let groups = if skips { groups_of(inputs) } else { self.groups(inputs) };
            Layer { inputs, kind: self.resnet(groups, self.block_groups(skips, outputs), scale(skips)) }
        };
        let attentions = match block {
            AttnDownBlock2D | AttnSkipDownBlock2D => vec![self.attention(outputs, skips); self.layers_per_block],
            DownBlock2D | ResnetDownsampleBlock2D | SkipDownBlock2D => Vec::new(),
        };
        let resnet = |resample| {
            let groups = self.block_groups(skips, outputs);
            Resampler::Resnet(resample, self.resnet(groups, groups, scale(skips)))
        };
        let resampler = match (block, self.downsample_type) {
            (SkipDownBlock2D | AttnSkipDownBlock2D, _) => resnet(Resample::FirDown),
            (ResnetDownsampleBlock2D, _) | (AttnDownBlock2D, ResampleType::Resnet) => resnet(Resample::AvgPool),
            (DownBlock2D, _) | (AttnDownBlock2D, ResampleType::Conv) => Resampler::Conv,
        };
        Block {
            resnets: (0..self.layers_per_block).map(layer).collect(),
            outputs,
            attentions,
            resampler: (i + 1 < channels.len()).then_some(resampler),
            has_skip_image: skips,
        }
    }

    /// Block `i`, counted from the middle. It mirrors the down block at the same level.
    pub(super) fn up(&self, i: usize) -> Block {
        use UpBlockType::*;
        let channels = &self.block_out_channels;
        let last = channels.len() - 1;
        let level = last - i;
        let (block, outputs) = (self.up_block_types[i], channels[level]);
        let skips = block.has_skip_image();
        let layers = self.layers_per_block + 1;
        let layer = |j| {
            let below = if j == 0 { channels[(level + 1).min(last)] } else { outputs };
            let skipped = if j + 1 == layers { channels[level.saturating_sub(1)] } else { outputs };
            let inputs = below + skipped;
            let groups = match block {
                // diffusers divides only the second summand by 4, and published weights were trained that way.
                AttnSkipUpBlock2D => (below + skipped / 4).clamp(1, 32),
                SkipUpBlock2D => groups_of(inputs),
                UpBlock2D | AttnUpBlock2D | ResnetUpsampleBlock2D => self.groups(inputs),
            };
            Layer { inputs, kind: self.resnet(groups, self.block_groups(skips, outputs), scale(skips)) }
        };
        let attended = match block {
            AttnUpBlock2D => layers,
            AttnSkipUpBlock2D => 1,
            UpBlock2D | ResnetUpsampleBlock2D | SkipUpBlock2D => 0,
        };
        let resnet = |resample| {
            let groups = self.block_groups(skips, outputs);
            Resampler::Resnet(resample, self.resnet(groups, groups, scale(skips)))
        };
        let resampler = match (block, self.upsample_type) {
            (SkipUpBlock2D | AttnSkipUpBlock2D, _) => resnet(Resample::FirUp),
            (ResnetUpsampleBlock2D, _) | (AttnUpBlock2D, ResampleType::Resnet) => resnet(Resample::Nearest),
            (UpBlock2D, _) | (AttnUpBlock2D, ResampleType::Conv) => Resampler::Conv,
        };
        Block {
            resnets: (0..layers).map(layer).collect(),
            outputs,
            attentions: vec![self.attention(outputs, skips); attended],
            resampler: (i < last).then_some(resampler),
            has_skip_image: skips,
        }
    }

    /// The middle block: two resnets, and perhaps an attention between them.
    pub(super) fn middle(&self) -> Option<Block> {
        self.mid_block_type?;
        let outputs = self.block_out_channels[self.block_out_channels.len() - 1];
        let (groups, scale) = (self.groups(outputs), self.mid_block_scale_factor);
        let layer = || Layer { inputs: outputs, kind: self.resnet(groups, groups, scale) };
        let of_default = (self.resnet_time_scale_shift == TimeEmbeddingNorm::Default).then_some(groups);
        let attention = SpatialAttentionKind {
            groups: self.attn_norm_num_groups.or(of_default),
            rescale_output_factor: scale,
            ..self.attention(outputs, false)
        };
        Some(Block {
            resnets: vec![layer(), layer()],
            outputs,
            attentions: if self.add_attention { vec![attention] } else { Vec::new() },
            resampler: None,
            has_skip_image: false,
        })
    }

    fn block_groups(&self, skips: bool, channels: usize) -> usize {
        if skips { groups_of(channels) } else { self.groups(channels) }
    }

    fn resnet(&self, groups: usize, groups_out: usize, output_scale_factor: f64) -> ResnetKind {
        ResnetKind {
            groups,
            groups_out,
            eps: self.norm_eps,
            time_embed_dim: Some(self.time_width()),
            time_embedding_norm: self.resnet_time_scale_shift,
            output_scale_factor,
            separable: false,
        }
    }

    fn attention(&self, channels: usize, skips: bool) -> SpatialAttentionKind {
        SpatialAttentionKind {
            channels,
            heads: (channels / self.attention_head_dim.unwrap_or(channels)).max(1),
            groups: Some(if skips { SKIP_ATTENTION_GROUPS } else { self.groups(channels) }),
            eps: self.norm_eps,
            rescale_output_factor: scale(skips),
        }
    }
}

fn scale(skips: bool) -> f64 {
    if skips { SKIP_SCALE } else { 1.0 }
}
