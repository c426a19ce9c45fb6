//! The autoencoder of the families whose denoiser is a transformer: what [`Networks`](crate::pipelines::Networks) asks
//! of an autoencoder, for an `AutoencoderKL`.

use candle_core::{DType, Tensor};

use super::stages;
use crate::{
    device::{Device, Precision},
    models::{
        AutoencoderKl,
        autoencoder_kl::{AutoencoderKlConfig, Moments, Stage, current_name},
    },
    pipelines::{Activation, NetworkError, Posterior},
    weights::{LoadError, ModelFolder, Weights},
};

/// The most multiplications of one row in a decoding stage of several layers. These multiplications take tens of
/// milliseconds on a few cores.
const STAGE_WORK: f64 = 1e9;

/// An autoencoder in memory. Latents for the denoiser are (z − `shift_factor`) · `scaling_factor`, where z are the
/// latents of the network.
#[derive(Debug)]
pub(super) struct Autoencoder {
    vae: AutoencoderKl,
    config: AutoencoderKlConfig,
    device: Device,
}

/// The folder and the stem of the weight files.
pub(super) const PART: (&str, &str) = ("vae", "diffusion_pytorch_model");

impl Autoencoder {
    /// Reads the weights, in float32: the numbers of some autoencoders exceed float16.
    pub fn load(folder: &ModelFolder, config: &AutoencoderKlConfig, device: &Device) -> Result<Self, LoadError> {
        let weights = Weights::open(folder, PART.0, PART.1, device, current_name)?;
        let vae = AutoencoderKl::new(config, &weights.in_precision(Precision::F32));
        weights.finish()?;
        Ok(Self { vae, config: config.clone(), device: device.clone() })
    }

    /// Checks that the files have exactly the tensors of the network. Returns a note about the files.
    pub fn check(folder: &ModelFolder, config: &AutoencoderKlConfig) -> Result<Option<String>, LoadError> {
        let weights = Weights::open(folder, PART.0, PART.1, &Device::host(), current_name)?;
        let note = weights.note();
        weights.check(|weights| drop(AutoencoderKl::new(config, weights)))?;
        Ok(note)
    }

    /// The distributions of the latents of pictures (3, H, W).
    pub async fn encode(&self, [height, width]: [usize; 2], rows: &[Vec<f32>]) -> Result<Vec<Posterior>, NetworkError> {
        let (scale, shift) = (self.config.scaling_factor as f32, self.config.shift_factor.unwrap_or(0.0) as f32);
        let encode = async {
            let pixels: Vec<f32> = rows.iter().flatten().copied().collect();
            let pixels = Tensor::from_vec(pixels, (rows.len(), 3, height, width), self.device.candle())?;
            let Moments { mean, logvar } = self.vae.encode(&pixels).await?;
            let posterior = |(mean, logvar): (Vec<f32>, Vec<f32>)| Posterior {
                std: logvar.into_iter().map(|logvar| libm::expf(0.5 * logvar) * scale).collect(),
                mean: mean.iter().map(|mean| (mean - shift) * scale).collect(),
                unscaled: mean,
            };
            Ok(rows_of(&mean)?.into_iter().zip(rows_of(&logvar)?).map(posterior).collect())
        };
        encode.await.map_err(NetworkError::of("vae_encoder"))
    }

    /// The shares of the stages of decoding latents of (h, w).
    pub fn decode_stages(&self, h: usize, w: usize) -> Vec<f64> {
        stages::shares(&self.stages(h, w))
    }

    /// Runs one stage of decoding latents of (h, w).
    pub async fn decode(
        &self,
        [h, w]: [usize; 2],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let stages = self.stages(h, w);
        let layers = stages::at(&stages, stage)?.layers.clone();
        let decode = async {
            let mut x = Activation::join(rows)?.to_device(self.device.candle())?;
            if stage == 0 {
                x = x.affine(1.0 / self.config.scaling_factor, self.config.shift_factor.unwrap_or(0.0))?;
            }
            Activation::split(self.vae.decode_layers(layers, x).await?)
        };
        decode.await.map_err(NetworkError::of("vae"))
    }

    fn stages(&self, h: usize, w: usize) -> Vec<Stage> {
        self.vae.decode_stages(h, w, STAGE_WORK)
    }
}

/// The rows of a batch, each as a list of numbers.
pub(super) fn rows_of(batch: &Tensor) -> candle_core::Result<Vec<Vec<f32>>> {
    batch.flatten_from(1)?.to_dtype(DType::F32)?.to_vec2()
}
