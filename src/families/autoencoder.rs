//! The autoencoder of a latent diffusion transformer, which decodes latents in stages.

use super::stages;
use crate::{
    device::Device,
    models::{
        AutoencoderKl,
        autoencoder_kl::{AutoencoderKlConfig, Tiles, current_name},
    },
    pipelines::{Activation, NetworkError},
    weights::{LoadError, ModelFolder, Weights},
};

/// The most multiplications of one row in a decoding stage of several layers. These multiplications take tens of
/// milliseconds on a few cores.
const STAGE_WORK: f64 = 1e9;

/// The network of the subfolder `vae` in float32, and its configuration.
#[derive(Debug)]
pub(super) struct Autoencoder {
    network: AutoencoderKl,
    config: AutoencoderKlConfig,
    device: Device,
}

impl Autoencoder {
    /// Reads the weights.
    pub fn load(folder: &ModelFolder, config: &AutoencoderKlConfig, device: &Device) -> Result<Self, LoadError> {
        let weights = Weights::open(folder, "vae", "diffusion_pytorch_model", device, current_name)?;
        let network = AutoencoderKl::new(config, &weights);
        weights.finish()?;
        Ok(Self { network, config: config.clone(), device: device.clone() })
    }

    /// Checks the tensors of the files without reading them. Returns a note about the files.
    pub fn check(folder: &ModelFolder, config: &AutoencoderKlConfig) -> Result<Option<String>, LoadError> {
        let weights = Weights::open(folder, "vae", "diffusion_pytorch_model", &Device::host(), current_name)?;
        let note = weights.note();
        weights.check(|weights| drop(AutoencoderKl::new(config, weights)))?;
        Ok(note)
    }

    /// The tiles in which latents of (h, w) are decoded.
    pub fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        self.config.tiles(h, w)
    }

    /// The shares of the stages of decoding latents (C, h, w); see `Networks::decode_stages`.
    pub fn decode_stages(&self, [_, h, w]: [usize; 3]) -> Vec<f64> {
        stages::shares(&self.network.decode_stages(h, w, STAGE_WORK))
    }

    /// Runs one stage; see `Networks::decode`.
    pub async fn decode(
        &self,
        [_, h, w]: [usize; 3],
        stage: usize,
        rows: &[Activation],
    ) -> Result<Vec<Activation>, NetworkError> {
        let stages = self.network.decode_stages(h, w, STAGE_WORK);
        let layers = stages::at(&stages, stage)?;
        let decode = async {
            let mut x = Activation::join(rows)?.to_device(self.device.candle())?;
            if stage == 0 {
                x = x.affine(1.0 / self.config.scaling_factor, 0.0)?;
            }
            Activation::split(self.network.decode_layers(layers.layers.clone(), x).await?)
        };
        decode.await.map_err(NetworkError::of("vae"))
    }
}
