//! The sizes of a model's layers, from which the demand of its calls is computed.

use super::{Description, vae_precision};
use crate::{
    device::Precision,
    models::{
        autoencoder_kl::{AutoencoderKlConfig, Tiles},
        autoencoder_tiny::AutoencoderTinyConfig,
        clip_text::ClipTextConfig,
        demand::Demand,
        latent_diffusion::Part,
        unet2d_condition::UNet2DConditionConfig,
    },
};

/// The configurations of all networks of a model.
#[derive(Clone, Debug)]
pub struct Sizes {
    text: Vec<ClipTextConfig>,
    unet: UNet2DConditionConfig,
    vae: AutoencoderKlConfig,
    vae_tiny: Option<AutoencoderTinyConfig>,
    /// Tokens of a prompt.
    context_length: usize,
}

impl Sizes {
    pub(super) fn of(description: &Description) -> Sizes {
        Sizes {
            text: description.text.iter().map(|(.., config)| config.clone()).collect(),
            unet: description.unet_config.clone(),
            vae: description.vae_config.clone(),
            vae_tiny: description.vae_tiny_config.clone(),
            context_length: description.spec.context_length,
        }
    }

    /// The demand of one row of a call. For text, one row is one prompt through all encoders.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => self.text.iter().map(ClipTextConfig::demand).fold(Demand::default(), Demand::then),
            Part::Denoise { size, tokens, shallow: false, adapted } => self.unet.demand(size, tokens, adapted),
            Part::Denoise { size, tokens, shallow: true, adapted } => self.unet.demand_shallow(size, tokens, adapted),
            Part::Encode { size } => self.vae.encode_demand(size),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::DecodeTiny { size } => self.vae_tiny.as_ref().map_or(Demand::default(), |tiny| tiny.demand(size)),
        }
    }

    /// The precision of the networks of a call if the device has `precision`.
    pub fn precision(&self, part: Part, precision: Precision) -> Precision {
        match part {
            Part::Text { .. } | Part::Denoise { .. } => precision,
            Part::Encode { .. } | Part::Decode { .. } => vae_precision(&self.vae, &self.unet, precision),
            Part::DecodeTiny { .. } => Precision::F32,
        }
    }

    /// The tiles in which latents of (h, w) are decoded.
    pub fn tiles(&self, [h, w]: [usize; 2]) -> Tiles {
        self.vae.tiles(h, w)
    }

    /// Tokens of one prompt.
    pub fn context_length(&self) -> usize {
        self.context_length
    }
}
