//! The autoencoder between pictures and vectors of a codebook (diffusers' `VQModel`; van den Oord et al. 2017,
//! arXiv:1711.00937, in the form of Esser et al. 2021, arXiv:2012.09841).

mod configuration;

use std::ops::Range;

use candle_core::{Result, Tensor};

pub use configuration::VqModelConfig;

use super::{
    autoencoder_kl::{Decoder, Encoder, Stage, stages},
    layers::{Linear, channels_first, channels_last},
};
use crate::weights::Weights;

/// The autoencoder, without the scaling that the pipeline applies between it and the U-Net.
#[derive(Debug)]
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Linear,
    /// The codebook, (codes, D).
    embedding: Tensor,
    post_quant_conv: Linear,
    decoder: Decoder,
}

impl VqModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &VqModelConfig, weights: &Weights) -> Self {
        let (shape, c, d) = (config.autoencoder(), config.latent_channels, config.embedding_width());
        Self {
            encoder: Encoder::new(&weights.pp("encoder"), &shape, c),
            quant_conv: Linear::pointwise(&weights.pp("quant_conv"), c, d),
            embedding: weights.tensor("quantize.embedding.weight", &[config.num_vq_embeddings, d]),
            post_quant_conv: Linear::pointwise(&weights.pp("post_quant_conv"), d, c),
            decoder: Decoder::new(&weights.pp("decoder"), &shape),
        }
    }

    /// pixels (B, 3, H, W) in [-1, 1] → latents (B, D, h, w), not yet replaced by codes
    pub async fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        let x = self.encoder.forward(&channels_last(pixels)?).await?;
        channels_first(&self.quant_conv.forward(&x)?)
    }

    /// latents (B, D, h, w) → the index of the nearest code for every latent pixel, row by row of the map. Of several
    /// nearest codes, the first one counts.
    ///
    /// # Errors
    /// The latents have another width than the codes.
    pub fn indices(&self, latents: &Tensor) -> Result<Vec<u32>> {
        let codes = self.embedding.to_vec2::<f32>()?;
        let x = channels_last(latents)?;
        let width = x.dim(3)?;
        if codes.iter().any(|code| code.len() != width) {
            candle_core::bail!("latents of {width} channels, codes of {:?}", self.embedding.shape());
        }
        Ok(x.flatten_all()?.to_vec1::<f32>()?.chunks_exact(width).map(|pixel| nearest(pixel, &codes)).collect())
    }

    /// latents (B, D, h, w) → the nearest codes, (B, D, h, w)
    pub fn quantize(&self, latents: &Tensor) -> Result<Tensor> {
        let (b, d, h, w) = latents.dims4()?;
        let indices = Tensor::from_vec(self.indices(latents)?, b * h * w, latents.device())?;
        channels_first(&self.embedding.index_select(&indices, 0)?.reshape((b, h, w, d))?)
    }

    /// codes (B, D, h, w), as [`VqModel::quantize`] returns them → pixels (B, 3, H, W), roughly in [-1, 1]
    pub async fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        channels_first(&self.decode_layers(0..self.decoder.depth(), codes.clone()).await?)
    }

    /// Runs some layers of the decoder. The first layer takes codes (B, D, h, w), the last returns pixels (B, H, W, 3);
    /// between two layers, the map is (B, height, width, channels).
    pub async fn decode_layers(&self, layers: Range<usize>, mut x: Tensor) -> Result<Tensor> {
        if layers.start == 0 {
            x = self.post_quant_conv.forward(&channels_last(&x)?)?;
        }
        self.decoder.forward(layers, x).await
    }

    /// Groups the layers of the decoder into stages of at most `quantum` multiplications for one row of (h, w) latent
    /// pixels; a layer with more multiplications is a stage of its own. Each stage is one call.
    pub fn decode_stages(&self, h: usize, w: usize, quantum: f64) -> Vec<Stage> {
        stages(&self.decoder.demands(h, w), quantum)
    }
}

/// The index of the nearest code, or of the first one if several codes are equally near.
fn nearest(pixel: &[f32], codes: &[Vec<f32>]) -> u32 {
    let distance = |code: &[f32]| code.iter().zip(pixel).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    let (mut best, mut least) = (0, f32::INFINITY);
    for (i, code) in codes.iter().enumerate() {
        let distance = distance(code);
        if distance < least {
            (best, least) = (i, distance);
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equally_near_codes_is_taken() {
        let codes = vec![vec![5.0, 5.0], vec![0.0, 1.0], vec![0.0, -1.0], vec![0.0, 1.0]];
        assert_eq!(nearest(&[0.0, 0.0], &codes), 1);
        assert_eq!(nearest(&[0.0, -0.1], &codes), 2);
        assert_eq!(nearest(&[9.0, 9.0], &codes), 0);
    }
}
