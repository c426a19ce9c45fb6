//! Text encoders and an autoencoder that stay in the memory of the host and are copied to the device for their calls.

use candle_core::Result;

use super::{AutoencoderKl, AutoencoderKlConfig, ClipTextConfig, ClipTextModel, ClipTokenizer, current_name};
use crate::{
    device::{Device, Precision},
    models::{
        latent_diffusion::Part,
        offload::{Lent, OnDevice},
    },
    weights::{LoadError, ModelFolder, WeightSize, Weights, as_stored},
};

/// The networks in the memory of the host. At most one kind of them has a copy on the device, unless a call of another
/// kind has not ended yet.
#[derive(Debug)]
pub(super) struct Away {
    pub text: Vec<Lent<ClipTextModel>>,
    pub vae: Lent<AutoencoderKl>,
    /// Bytes of the weights of all text encoders on the device.
    pub text_bytes: u64,
    /// Bytes of the weights of the autoencoder on the device.
    pub vae_bytes: u64,
}

impl Away {
    /// Reads the networks of a folder. `noted` gets the weights of each text encoder, with the name of its part.
    ///
    /// # Errors
    /// Tensors are missing, unused or do not fit.
    pub fn load(
        folder: &ModelFolder,
        text: &[(&'static str, ClipTokenizer, ClipTextConfig)],
        vae_config: &AutoencoderKlConfig,
        (device, vae_precision): (&Device, Precision),
        noted: impl Fn(&str, &Weights),
    ) -> std::result::Result<Away, LoadError> {
        const VAE: (&str, &str) = ("vae", "diffusion_pytorch_model");
        let precision = device.precision();
        let (mut encoders, mut text_bytes) = (Vec::new(), 0);
        for (part, _, config) in text {
            let weights = Weights::open(folder, part, "model", device, as_stored)?.in_precision(precision);
            let config = config.clone();
            encoders.push(Lent::load(weights, move |w| ClipTextModel::new(&config, w), |w| noted(part, w))?);
            text_bytes += WeightSize::read(folder, part, "model")?.bytes(precision, device.kernels());
        }
        let weights = Weights::open(folder, VAE.0, VAE.1, device, current_name)?.in_precision(vae_precision);
        let config = vae_config.clone();
        let vae = Lent::load(weights, move |w| AutoencoderKl::new(&config, w), |_| ())?;
        let vae_bytes = WeightSize::read(folder, VAE.0, VAE.1)?.bytes(vae_precision, device.kernels());
        Ok(Away { text: encoders, vae, text_bytes, vae_bytes })
    }

    /// The text encoders on the device.
    pub fn text(&self) -> Result<Vec<OnDevice<'_, ClipTextModel>>> {
        self.vae.send_back();
        self.text.iter().map(Lent::get).collect()
    }

    /// The autoencoder on the device.
    pub fn vae(&self) -> Result<OnDevice<'_, AutoencoderKl>> {
        self.text.iter().for_each(Lent::send_back);
        self.vae.get()
    }

    /// Removes all copies from the device as soon as no call uses them.
    pub fn send_back(&self) {
        self.text.iter().for_each(Lent::send_back);
        self.vae.send_back();
    }

    /// Bytes of the weights that a call copies to the device.
    pub fn bytes(&self, part: Part) -> u64 {
        match part {
            Part::Text { .. } => self.text_bytes,
            Part::Encode { .. } | Part::Decode { .. } => self.vae_bytes,
            Part::Denoise { .. } | Part::DecodeTiny { .. } => 0,
        }
    }
}
