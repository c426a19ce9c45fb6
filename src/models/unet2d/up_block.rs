//! The blocks on the way up.

use candle_core::{Result, Tensor};

use super::{
    configuration::UNet2DConfig,
    layout::{Block, Layer, Resampler},
};
use crate::{
    kernels::{Kernels, finish::Epilogue, maps::beside},
    models::{
        adapters::RowAdapters,
        layers::{Conv, GroupNorm},
        pause::pause,
        resample::Resample,
        resnet::{ResnetBlock2D, Upsample2D},
        spatial_attention::SpatialAttention,
    },
    weights::Weights,
};

/// diffusers' `UpBlock2D`, `AttnUpBlock2D`, `ResnetUpsampleBlock2D`, `SkipUpBlock2D` and `AttnSkipUpBlock2D`.
#[derive(Debug)]
pub(super) struct UpBlock {
    resnets: Vec<ResnetBlock2D>,
    /// One after each resnet, or one after the last, or none.
    attentions: Vec<SpatialAttention>,
    /// Present in all blocks except the last.
    upsampler: Option<Upsampler>,
    has_skip_image: bool,
    kernels: Kernels,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has a few of them")]
enum Upsampler {
    Conv(Upsample2D),
    Resnet(ResnetBlock2D),
    /// Adds a convolution of the map to the skip image, then doubles the map.
    WithSkipImage {
        skip_norm: GroupNorm,
        skip_conv: Conv,
        resnet_up: ResnetBlock2D,
    },
}

impl UpBlock {
    /// Block `i`, counted from the middle.
    pub fn new(weights: &Weights, config: &UNet2DConfig, i: usize) -> Self {
        let Block { resnets, outputs, attentions, resampler, has_skip_image } = config.up(i);
        let paths = (weights.pp("resnets"), weights.pp("attentions"));
        let upsampler = resampler.map(|resampler| match resampler {
            Resampler::Conv => Upsampler::Conv(Upsample2D::new(&weights.pp("upsamplers.0"), outputs)),
            Resampler::Resnet(resample, kind) if has_skip_image => Upsampler::WithSkipImage {
                skip_norm: GroupNorm::new(&weights.pp("skip_norm"), kind.groups, outputs, kind.eps),
                skip_conv: Conv::new(&weights.pp("skip_conv"), outputs, config.out_channels, 3, 1, 1),
                resnet_up: ResnetBlock2D::resampling(&weights.pp("resnet_up"), outputs, kind, resample),
            },
            Resampler::Resnet(resample, kind) => {
                let weights = weights.pp("upsamplers.0");
                Upsampler::Resnet(ResnetBlock2D::resampling(&weights, outputs, kind, resample))
            }
        });
        let resnet =
            |(j, layer): (usize, &Layer)| ResnetBlock2D::new(&paths.0.pp(j), layer.inputs, outputs, layer.kind);
        Self {
            resnets: resnets.iter().enumerate().map(resnet).collect(),
            attentions: (attentions.iter().enumerate())
                .map(|(j, kind)| SpatialAttention::new(&paths.1.pp(j), *kind))
                .collect(),
            upsampler,
            has_skip_image,
            kernels: weights.kernels(),
        }
    }

    /// x (B, h, w, in) → (B, 2h, 2w, out); the last block keeps the size. Each resnet takes one map from the end of
    /// `skips`. If the block has a skip image, `image` is doubled, and each block except the last adds a convolution of
    /// its map to the image.
    pub async fn forward(
        &self,
        mut x: Tensor,
        time: &Tensor,
        skips: &mut Vec<Tensor>,
        image: &mut Option<Tensor>,
    ) -> Result<Tensor> {
        let attended_from = self.resnets.len() - self.attentions.len();
        for (j, resnet) in self.resnets.iter().enumerate() {
            let Some(skip) = skips.pop() else { candle_core::bail!("the down blocks left too few maps") };
            x = resnet.forward(&beside(&x, &skip)?, Some(time), RowAdapters::NONE).await?;
            if let Some(attention) = j.checked_sub(attended_from).and_then(|j| self.attentions.get(j)) {
                x = attention.forward(&x).await?;
            }
        }
        if self.has_skip_image {
            *image = image.as_ref().map(|image| Resample::FirUp.forward(self.kernels, image)).transpose()?;
        }
        let Some(upsampler) = &self.upsampler else { return Ok(x) };
        pause().await;
        match upsampler {
            Upsampler::Conv(conv) => conv.forward(&x, 2 * x.dim(1)?, 2 * x.dim(2)?, RowAdapters::NONE),
            Upsampler::Resnet(resnet) => resnet.forward(&x, Some(time), RowAdapters::NONE).await,
            Upsampler::WithSkipImage { skip_norm, skip_conv, resnet_up } => {
                let epilogue = Epilogue { residual: image.as_ref(), ..Epilogue::default() };
                *image = Some(skip_conv.adapted_with(&skip_norm.forward_silu(&x)?, epilogue, RowAdapters::NONE)?);
                resnet_up.forward(&x, Some(time), RowAdapters::NONE).await
            }
        }
    }
}
