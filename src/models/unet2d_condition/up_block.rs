//! The blocks on the way up.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{EmbeddedConditions, UNet2DConditionConfig};
use crate::{
    kernels::maps::beside,
    models::{
        motion_adapter::After,
        pause::pause,
        resnet::{ResnetBlock2D, Upsample2D},
        transformer2d::Transformer2DModel,
    },
    weights::Weights,
};

/// diffusers' `UpBlock2D` and, with attentions, `CrossAttnUpBlock2D`.
#[derive(Debug)]
pub(super) struct UpBlock {
    /// The number of the block, counted from the middle.
    index: usize,
    resnets: Vec<ResnetBlock2D>,
    /// One after each resnet, or none.
    attentions: Vec<Transformer2DModel>,
    /// Present in all blocks except the last.
    upsampler: Option<Upsample2D>,
}

impl UpBlock {
    /// Block `i`, counted from the middle. It mirrors the down block `level`.
    pub fn new(weights: &Weights, config: &UNet2DConditionConfig, i: usize) -> Self {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        let level = last - i;
        let outputs = channels[level];
        let previous = channels[(level + 1).min(last)];
        let skipped_below = channels[level.saturating_sub(1)];
        let layers = config.layers_per_block.at(level) + 1;
        let transformer_layers = match &config.reverse_transformer_layers_per_block {
            Some(layers) => layers[i],
            None => config.transformer_layers_per_block.at(level),
        };
        let block = config.up_block_types[i];
        let transformer = config.transformer(level, transformer_layers, block.attends_to_itself());
        let (resnets, attentions) = (weights.pp("resnets"), weights.pp("attentions"));
        let attended = if block.is_attended() { layers } else { 0 };
        Self {
            index: i,
            resnets: (0..layers)
                .map(|j| {
                    let below = if j == 0 { previous } else { outputs };
                    let skipped = if j + 1 == layers { skipped_below } else { outputs };
                    ResnetBlock2D::new(&resnets.pp(j), below + skipped, outputs, config.resnet(1.0))
                })
                .collect(),
            attentions: (0..attended).map(|j| Transformer2DModel::new(&attentions.pp(j), transformer)).collect(),
            upsampler: (i < last).then(|| Upsample2D::new(&weights.pp("upsamplers.0"), outputs)),
        }
    }

    pub fn layers(&self) -> usize {
        self.resnets.len()
    }

    /// x (B, h, w, in) → (B, H, W, out), where H × W is the size of the next skip. Each resnet takes one map from the
    /// end of `skips`.
    pub async fn forward(
        &self,
        x: Tensor,
        conditions: &EmbeddedConditions<'_>,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        let x = self.forward_layers(0..self.layers(), x, conditions, skips).await?;
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => {
                pause().await;
                upsampler.forward(&x, next.dim(1)?, next.dim(2)?, conditions.adapters)
            }
            _ => Ok(x),
        }
    }

    /// Runs some of the layers, without the upsampler after the last layer.
    pub async fn forward_layers(
        &self,
        layers: Range<usize>,
        mut x: Tensor,
        conditions: &EmbeddedConditions<'_>,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for j in layers {
            let Some(skip) = skips.pop() else { candle_core::bail!("the down blocks left too few maps") };
            x = self.resnets[j].forward(&beside(&x, &skip)?, Some(&conditions.time), conditions.adapters).await?;
            if let Some(attention) = self.attentions.get(j) {
                x = attention.forward(&x, conditions.text, conditions.adapters).await?;
            }
            x = conditions.moved(After::Up { block: self.index, layer: j }, x).await?;
        }
        Ok(x)
    }
}
