//! The U-Net of Stable Diffusion 1, 2 and XL and of AudioLDM (diffusers' `UNet2DConditionModel`; Rombach et al. 2022,
//! arXiv:2112.10752).

mod conditions;
mod configuration;
mod demand;
mod down_block;
mod mid_block;
mod up_block;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

pub use conditions::{Added, Conditions};
pub(super) use conditions::{EmbeddedConditions, Embeddings};
pub use configuration::{AddedConditions, DownBlockType, MidBlockType, UNet2DConditionConfig, UpBlockType};
pub(super) use configuration::{AdditionEmbedType, Layers, maps};
pub(super) use down_block::DownBlock;
pub(super) use mid_block::MidBlock;
use up_block::UpBlock;

use super::{
    control_net::residuals::Residuals,
    layers::{Conv, GroupNorm, channels_first, channels_last},
    pause::pause,
};
use crate::{device::Precision, weights::Weights};

/// Predicts the quantity of the scheduler's `prediction_type` from noisy latents, a time and a text or a vector.
#[derive(Debug)]
pub struct UNet2DConditionModel {
    embeddings: Embeddings,
    conv_in: Conv,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv,
    center_input_sample: bool,
}

impl UNet2DConditionModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &UNet2DConditionConfig, weights: &Weights) -> Self {
        let channels = &config.block_out_channels;
        let blocks = channels.len();
        let (down, up) = (weights.pp("down_blocks"), weights.pp("up_blocks"));
        let conv = |name, inputs, outputs, kernel| Conv::new(&weights.pp(name), inputs, outputs, kernel, 1, kernel / 2);
        // The blocks hold most of the weights, so they are read and packed in parallel.
        let (down_blocks, (mid_block, up_blocks)) = rayon::join(
            || (0..blocks).into_par_iter().map(|i| DownBlock::new(&down.pp(i), config, i)).collect(),
            || {
                rayon::join(
                    || MidBlock::new(&weights.pp("mid_block"), config),
                    || (0..blocks).into_par_iter().map(|i| UpBlock::new(&up.pp(i), config, i)).collect(),
                )
            },
        );
        Self {
            embeddings: Embeddings::new(weights, config),
            conv_in: conv("conv_in", config.in_channels, channels[0], config.conv_in_kernel),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                &weights.pp("conv_norm_out"),
                config.norm_num_groups,
                channels[0],
                config.norm_eps,
            ),
            // The prediction is float32: samplers multiply its errors.
            conv_out: Conv::new(
                &weights.pp("conv_out").in_precision(Precision::F32),
                channels[0],
                config.out_channels,
                config.conv_out_kernel,
                1,
                config.conv_out_kernel / 2,
            ),
            center_input_sample: config.center_input_sample,
        }
    }

    /// sample (B, C, h, w) → (B, C_out, h, w). `control` is added to the skips and to the output of the middle block.
    pub async fn forward(&self, sample: &Tensor, conditions: &Conditions<'_>, control: &Residuals) -> Result<Tensor> {
        Ok(self.forward_keeping(sample, conditions, control).await?.0)
    }

    /// As [`UNet2DConditionModel::forward`], and also the deep features (B, h, w, C) for
    /// [`UNet2DConditionModel::forward_shallow`]: the map that enters the last layer on the way up.
    pub async fn forward_keeping(
        &self,
        sample: &Tensor,
        conditions: &Conditions<'_>,
        control: &Residuals,
    ) -> Result<(Tensor, Tensor)> {
        let (mut x, embedded) = self.enter(sample, conditions)?;
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &embedded, &mut skips).await?;
        }
        x = control.onto_middle(self.mid_block.forward(&x, &embedded).await?)?;
        control.onto_skips(&mut skips)?;
        let (last, blocks) = self.up_blocks()?;
        for block in blocks {
            x = block.forward(x, &embedded, &mut skips).await?;
        }
        let features = last.forward_layers(0..last.layers() - 1, x, &embedded, &mut skips).await?;
        let x = last.forward_layers(last.layers() - 1..last.layers(), features.clone(), &embedded, &mut skips).await?;
        pause().await;
        Ok((self.leave(&x, &embedded)?, features))
    }

    /// Runs only the shallowest branch: the first convolution, the outermost skip, the last layer on the way up, and
    /// the output. `features` of an earlier call replace the rest (section 3 of Ma et al. 2023, arXiv:2312.00858;
    /// `cache_branch_id` 0 of its authors' program).
    pub async fn forward_shallow(
        &self,
        sample: &Tensor,
        conditions: &Conditions<'_>,
        features: &Tensor,
    ) -> Result<Tensor> {
        let (x, embedded) = self.enter(sample, conditions)?;
        let (last, _) = self.up_blocks()?;
        let x =
            last.forward_layers(last.layers() - 1..last.layers(), features.clone(), &embedded, &mut vec![x]).await?;
        pause().await;
        self.leave(&x, &embedded)
    }

    /// The first map, (B, h, w, C), and the embedded conditions that every block takes.
    fn enter<'a>(&self, sample: &Tensor, conditions: &Conditions<'a>) -> Result<(Tensor, EmbeddedConditions<'a>)> {
        let Conditions { t, text, vector, .. } = conditions;
        let conditions_of_rows = text.or(*vector).map_or(Ok(0), |tensor| tensor.dim(0))?;
        if t.len() != sample.dim(0)? || t.len() != conditions_of_rows {
            candle_core::bail!("{:?} latents, {} times, {conditions_of_rows} texts", sample.shape(), t.len());
        }
        let embedded = self.embeddings.forward(conditions, sample.device())?;
        let mut x = channels_last(sample)?;
        if self.center_input_sample {
            x = x.affine(2.0, -1.0)?;
        }
        Ok((self.conv_in.adapted(&x, embedded.adapters)?, embedded))
    }

    /// The last up block, and the up blocks before it.
    fn up_blocks(&self) -> Result<(&UpBlock, &[UpBlock])> {
        match self.up_blocks.split_last() {
            Some(blocks) => Ok(blocks),
            None => candle_core::bail!("a U-Net without blocks"),
        }
    }

    /// (B, h, w, C) → (B, C_out, h, w), in float32
    fn leave(&self, x: &Tensor, embedded: &EmbeddedConditions<'_>) -> Result<Tensor> {
        let normed = self.conv_norm_out.forward_silu(&x.to_dtype(DType::F32)?)?;
        channels_first(&self.conv_out.adapted(&normed, embedded.adapters)?)
    }
}
