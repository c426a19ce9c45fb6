//! The autoencoder of a latent diffusion model on a device, with the scale and the shift that turn its latents into the
//! denoiser's latents.

use candle_core::{DType, Result, Tensor};

use super::stages;
use crate::{
    device::{Device, Precision},
    models::{
        AutoencoderKl,
        autoencoder_kl::{AutoencoderKlConfig, Moments, current_name},
    },
    pipelines::{Activation, NetworkError, Posterior},
    weights::{LoadError, ModelFolder, Weights},
};

/// The autoencoder in the subfolder `vae`. Latents for the denoiser are
/// `(latents of the autoencoder − shift_factor) · scaling_factor`.
#[derive(Debug)]
pub(super) struct Autoencoder {
    vae: AutoencoderKl,
    config: AutoencoderKlConfig,
    device: Device,
}

/// The channels of a picture.
pub(super) const RGB: usize = 3;

const PART: &str = "vae";
const WEIGHTS: &str = "diffusion_pytorch_model";

/// A decoding stage of several layers does at most this number of multiplications for one row. A layer with more is a
/// stage of its own. These multiplications take tens of milliseconds on a few cores.
const STAGE_WORK: f64 = 1e9;

impl Autoencoder {
    /// Reads the weights.
    ///
    /// # Errors
    /// The files are missing or broken, or do not fit the configuration.
    pub fn load(
        folder: &ModelFolder,
        config: &AutoencoderKlConfig,
        device: &Device,
        precision: Precision,
    ) -> std::result::Result<Self, LoadError> {
        let weights = Weights::open(folder, PART, WEIGHTS, device, current_name)?;
        let vae = AutoencoderKl::new(config, &weights.in_precision(precision));
        weights.finish()?;
        Ok(Self { vae, config: config.clone(), device: device.clone() })
    }

    /// Checks that the files have exactly the tensors that the network needs, and that its latents have `wanted`
    /// channels, without reading weights. Returns a note about the files.
    ///
    /// # Errors
    /// Those of [`Autoencoder::load`].
    pub fn check(
        folder: &ModelFolder,
        config: &AutoencoderKlConfig,
        wanted: usize,
    ) -> std::result::Result<Option<String>, LoadError> {
        for (key, channels) in [("in_channels", config.in_channels), ("out_channels", config.out_channels)] {
            if channels != wanted {
                let what = if wanted == RGB { "the channels of a picture" } else { "the channels of a spectrogram" };
                let reason = format!("must be {wanted}, {what}, not {channels}");
                return Err(LoadError::BadKey { path: "vae/config.json".into(), key: key.into(), reason });
            }
        }
        let weights = Weights::open(folder, PART, WEIGHTS, &Device::host(), current_name)?;
        let note = weights.note();
        weights.check(|w| drop(AutoencoderKl::new(config, w)))?;
        Ok(note)
    }

    fn shift(&self) -> f64 {
        self.config.shift_factor.unwrap_or(0.0)
    }

    /// The distribution of the latents of each picture with pixels (3, H, W) in [-1, 1].
    pub async fn encode(
        &self,
        [height, width]: [usize; 2],
        rows: &[Vec<f32>],
    ) -> std::result::Result<Vec<Posterior>, NetworkError> {
        let (scale, shift) = (self.config.scaling_factor as f32, self.shift() as f32);
        let encode = async {
            let shape = (rows.len(), 3, height, width);
            let pixels = Tensor::from_vec(rows.concat(), shape, self.device.candle())?;
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

    /// See [`Networks::decode_stages`](crate::pipelines::Networks::decode_stages).
    pub fn decode_stages(&self, [h, w]: [usize; 2]) -> Vec<f64> {
        stages::shares(&self.vae.decode_stages(h, w, STAGE_WORK))
    }

    /// See [`Networks::decode`](crate::pipelines::Networks::decode).
    pub async fn decode(
        &self,
        [h, w]: [usize; 2],
        stage: usize,
        rows: &[Activation],
    ) -> std::result::Result<Vec<Activation>, NetworkError> {
        let stages = self.vae.decode_stages(h, w, STAGE_WORK);
        let layers = stages::at(&stages, stage)?;
        let decode = async {
            let mut x = Activation::join(rows)?.to_device(self.device.candle())?;
            if stage == 0 {
                x = x.affine(1.0 / self.config.scaling_factor, self.shift())?;
            }
            Activation::split(self.vae.decode_layers(layers.layers.clone(), x).await?)
        };
        decode.await.map_err(NetworkError::of("vae"))
    }
}

/// The rows of a tensor (B, …) as float32.
pub(super) fn rows_of(tensor: &Tensor) -> Result<Vec<Vec<f32>>> {
    tensor.flatten_from(1)?.to_dtype(DType::F32)?.to_vec2::<f32>()
}
