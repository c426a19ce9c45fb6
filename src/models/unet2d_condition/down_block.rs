//! The blocks on the way down.

use candle_core::{Result, Tensor};

use super::{EmbeddedConditions, UNet2DConditionConfig};
use crate::{
    models::{
        motion_adapter::After,
        pause::pause,
        resnet::{Downsample2D, ResnetBlock2D},
        transformer2d::Transformer2DModel,
    },
    weights::Weights,
};

/// diffusers' `DownBlock2D` and, with attentions, `CrossAttnDownBlock2D`.
#[derive(Debug)]
pub(in crate::models) struct DownBlock {
    /// The number of the block, counted from the input.
    index: usize,
    resnets: Vec<ResnetBlock2D>,
    /// One after each resnet, or none.
    attentions: Vec<Transformer2DModel>,
    /// Present in all blocks except the last.
    downsampler: Option<Downsample2D>,
}

impl DownBlock {
    /// Block `i`, counted from the input.
    pub fn new(weights: &Weights, config: &UNet2DConditionConfig, i: usize) -> Self {
        let channels = &config.block_out_channels;
        let (inputs, outputs) = (channels[i.saturating_sub(1)], channels[i]);
        let layers = config.layers_per_block.at(i);
        let block = config.down_block_types[i];
        let transformer = config.transformer(i, config.transformer_layers_per_block.at(i), block.attends_to_itself());
        let (resnets, attentions) = (weights.pp("resnets"), weights.pp("attentions"));
        let attended = if block.is_attended() { layers } else { 0 };
        Self {
            index: i,
            resnets: (0..layers)
                .map(|j| {
                    let inputs = if j == 0 { inputs } else { outputs };
                    ResnetBlock2D::new(&resnets.pp(j), inputs, outputs, config.resnet(1.0))
                })
                .collect(),
            attentions: (0..attended).map(|j| Transformer2DModel::new(&attentions.pp(j), transformer)).collect(),
            downsampler: (i + 1 < channels.len())
                .then(|| Downsample2D::new(&weights.pp("downsamplers.0"), outputs, config.downsample_padding)),
        }
    }

    /// x (B, h, w, in) → (B, h/2, w/2, out), rounded as by [`Downsample2D`]; the last block keeps the size. Every map
    /// is pushed on `skips`.
    pub async fn forward(
        &self,
        mut x: Tensor,
        conditions: &EmbeddedConditions<'_>,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, Some(&conditions.time), conditions.adapters).await?;
            if let Some(attention) = self.attentions.get(j) {
                x = attention.forward(&x, conditions.text, conditions.adapters).await?;
            }
            x = conditions.moved(After::Down { block: self.index, layer: j }, x).await?;
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            pause().await;
            x = downsampler.forward(&x, conditions.adapters)?;
            skips.push(x.clone());
        }
        Ok(x)
    }
}
