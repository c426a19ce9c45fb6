//! ControlNets, which take an additional picture and compute residuals that are added to the maps of a U-Net
//! (diffusers' `ControlNetModel`; Zhang et al. 2023, arXiv:2302.05543).

mod configuration;
pub(super) mod residuals;

use std::sync::OnceLock;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub use configuration::ControlNetConfig;
pub use residuals::Residuals;

use super::{
    adapters::RowAdapters,
    demand::Demand,
    layers::{Conv, Linear, channels_last},
    pause::pause,
    unet2d_condition::{Conditions, DownBlock, Embeddings, MidBlock},
};
use crate::{
    device::{Device, HOST},
    kernels::{Kernels, finish::Epilogue},
    weights::{LoadError, ModelFolder, Weights, as_stored},
};

/// A copy of a U-Net's down blocks and middle block, with a 1 × 1 convolution after each of their maps.
#[derive(Debug)]
pub struct ControlNet {
    embeddings: Embeddings,
    conv_in: Conv,
    cond_embedding: ConditioningEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    controlnet_down_blocks: Vec<Linear>,
    controlnet_mid_block: Linear,
    config: ControlNetConfig,
    device: Device,
}

/// A control picture, (1, 3, H, W) in [0, 1], and a cache of its embedding, which is the same in every call.
#[derive(Debug)]
pub struct Hint {
    pixels: Tensor,
    embedded: OnceLock<Tensor>,
}

impl Hint {
    /// `pixels` are (3, H, W) in [0, 1].
    ///
    /// # Errors
    /// There are not 3·H·W numbers.
    pub fn new(pixels: Vec<f32>, [height, width]: [usize; 2]) -> Result<Hint> {
        let pixels = Tensor::from_vec(pixels, (1, 3, height, width), &HOST)?;
        Ok(Hint { pixels, embedded: OnceLock::new() })
    }
}

impl ControlNet {
    /// Loads a ControlNet in diffusers' layout from the subfolder `name` of `folder`.
    ///
    /// # Errors
    /// The configuration is not supported, or the tensors do not fit.
    pub fn load(folder: &ModelFolder, name: &str, device: &Device) -> std::result::Result<ControlNet, LoadError> {
        let config = ControlNetConfig::of(folder, name)?;
        let weights = Weights::open(folder, name, "diffusion_pytorch_model", device, as_stored)?;
        let net = ControlNet::new(&config, &weights.in_precision(device.precision()));
        weights.finish()?;
        Ok(ControlNet { device: device.clone(), ..net })
    }

    /// Checks that the headers of the files have the tensors that the network needs. No weights are read.
    ///
    /// # Errors
    /// Those of [`ControlNet::load`].
    pub fn check(folder: &ModelFolder, name: &str) -> std::result::Result<(), LoadError> {
        let config = ControlNetConfig::of(folder, name)?;
        let weights = Weights::open(folder, name, "diffusion_pytorch_model", &Device::host(), as_stored)?;
        weights.check(|weights| drop(ControlNet::new(&config, weights)))
    }

    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &ControlNetConfig, weights: &Weights) -> Self {
        let unet = &config.unet;
        let channels = &unet.block_out_channels;
        let (down, behind) = (weights.pp("down_blocks"), weights.pp("controlnet_down_blocks"));
        let (down_blocks, mid_block) = rayon::join(
            || (0..channels.len()).into_par_iter().map(|i| DownBlock::new(&down.pp(i), unet, i)).collect(),
            || MidBlock::new(&weights.pp("mid_block"), unet),
        );
        let maps = unet.maps();
        let last = channels[channels.len() - 1];
        Self {
            embeddings: Embeddings::new(weights, unet),
            conv_in: Conv::new(
                &weights.pp("conv_in"),
                unet.in_channels,
                channels[0],
                unet.conv_in_kernel,
                1,
                unet.conv_in_kernel / 2,
            ),
            cond_embedding: ConditioningEmbedding::new(&weights.pp("controlnet_cond_embedding"), config),
            down_blocks,
            mid_block,
            controlnet_down_blocks: maps
                .iter()
                .enumerate()
                .map(|(i, width)| Linear::pointwise(&behind.pp(i), *width, *width))
                .collect(),
            controlnet_mid_block: Linear::pointwise(&weights.pp("controlnet_mid_block"), last, last),
            config: config.clone(),
            device: Device::host(),
        }
    }

    /// The number of channels of the latents that the network takes.
    pub fn in_channels(&self) -> usize {
        self.config.unet.in_channels
    }

    /// The demand of one row of (h, w) latent pixels and `tokens` text tokens.
    pub fn demand(&self, size: [usize; 2], tokens: usize) -> Demand {
        self.config.demand(size, tokens).on(&self.device, self.device.precision())
    }

    /// sample (B, C, h, w), and one hint with a scale for each row → the residuals for the U-Net's skips and for the
    /// output of its middle block, times the rows' scales. If `guess` (diffusers' `guess_mode`) is true, residuals of
    /// outer maps count less than residuals of inner maps: each residual is also multiplied by a factor. The factors
    /// rise in equal ratios from 0.1 for the outermost map to 1 for the middle block.
    pub async fn forward(
        &self,
        sample: &Tensor,
        conditions: &Conditions<'_>,
        hints: &[(&Hint, f32)],
        guess: bool,
    ) -> Result<(Vec<Tensor>, Tensor)> {
        // Guidance scales are only for U-Nets, namely the U-Nets of latent consistency models.
        let conditions = Conditions { adapters: RowAdapters::NONE, guidance: None, motion: None, ..*conditions };
        let (device, conditions) = (sample.device(), self.embeddings.forward(&conditions, sample.device())?);
        let mut embedded = Vec::with_capacity(hints.len());
        for (hint, _) in hints {
            embedded.push(self.embed(hint, device).await?);
        }
        let epilogue = Tensor::cat(&embedded, 0)?; // (B, h, w, C)
        let sample = channels_last(sample)?;
        let mut x = self.conv_in.adapted_with(&sample, Epilogue::residual(&epilogue), RowAdapters::NONE)?;
        let mut maps = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &conditions, &mut maps).await?;
        }
        let mid = self.mid_block.forward(&x, &conditions).await?;
        pause().await;

        let levels = maps.len() + 1;
        let scale = |i: usize| if guess { libm::pow(10.0, i as f64 / (levels - 1) as f64 - 1.0) as f32 } else { 1.0 };
        let scaled = |i: usize, map: Tensor| -> Result<Tensor> {
            let scales: Vec<f32> = hints.iter().map(|(_, of_row)| scale(i) * of_row).collect();
            let scales = Tensor::from_vec(scales, (hints.len(), 1, 1, 1), map.device())?;
            map.broadcast_mul(&scales.to_dtype(map.dtype())?)
        };
        let behind = self.controlnet_down_blocks.iter().zip(&maps).enumerate();
        let down = behind.map(|(i, (layer, map))| scaled(i, layer.forward(map)?)).collect::<Result<Vec<_>>>()?;
        Ok((down, scaled(levels - 1, self.controlnet_mid_block.forward(&mid)?)?))
    }

    /// The embedded hint, (1, h, w, C), from the cache or computed.
    async fn embed(&self, hint: &Hint, device: &candle_core::Device) -> Result<Tensor> {
        if let Some(embedded) = hint.embedded.get() {
            return embedded.to_device(device);
        }
        let embedded = self.cond_embedding.forward(&channels_last(&hint.pixels.to_device(device)?)?).await?;
        Ok(hint.embedded.get_or_init(|| embedded).clone())
    }
}

/// diffusers' `ControlNetConditioningEmbedding`: reduces a picture to the size and width of the U-Net's first map.
#[derive(Debug)]
struct ConditioningEmbedding {
    conv_in: Conv,
    blocks: Vec<Conv>,
    conv_out: Conv,
    kernels: Kernels,
}

impl ConditioningEmbedding {
    fn new(weights: &Weights, config: &ControlNetConfig) -> Self {
        let widths = &config.conditioning_embedding_out_channels;
        let blocks = weights.pp("blocks");
        let pairs = widths
            .windows(2)
            .enumerate()
            .flat_map(|(i, pair)| [(2 * i, pair[0], pair[0], 1), (2 * i + 1, pair[0], pair[1], 2)]);
        Self {
            conv_in: Conv::new(&weights.pp("conv_in"), config.conditioning_channels, widths[0], 3, 1, 1),
            blocks: pairs
                .map(|(i, inputs, outputs, stride)| Conv::new(&blocks.pp(i), inputs, outputs, 3, stride, 1))
                .collect(),
            conv_out: Conv::new(
                &weights.pp("conv_out"),
                widths[widths.len() - 1],
                config.unet.block_out_channels[0],
                3,
                1,
                1,
            ),
            kernels: weights.kernels(),
        }
    }

    /// (B, H, W, 3) → (B, h, w, C)
    async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        pause().await;
        let mut x = self.kernels.silu(&self.conv_in.adapted(x, RowAdapters::NONE)?)?;
        for block in &self.blocks {
            pause().await;
            x = self.kernels.silu(&block.adapted(&x, RowAdapters::NONE)?)?;
        }
        self.conv_out.adapted(&x, RowAdapters::NONE)
    }
}
