//! The configurations of a model's networks, and the properties that follow from them.

use crate::{
    device::Precision,
    generation::{FlowLevels, Mu},
    models::{
        autoencoder_kl::AutoencoderKlConfig,
        clip_text::ClipTextConfig,
        flux_transformer2d::FluxTransformer2DConfig,
        latent_diffusion::{Input, Spec},
        t5_encoder::T5Config,
    },
    weights::LoadError,
};

/// The configurations of the networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub clip: ClipTextConfig,
    pub t5: T5Config,
    pub transformer: FluxTransformer2DConfig,
    pub vae: AutoencoderKlConfig,
}

/// The side of a patch in latent pixels. Each patch is a token of the transformer.
pub(super) const PATCH: usize = 2;

/// The side of the pictures that the published models were trained on, for autoencoders whose configuration does not
/// contain it.
const SIDE: usize = 1024;

impl Sizes {
    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// Names two keys that do not fit.
    pub fn agree(&self) -> Result<(), LoadError> {
        let Sizes { clip, t5, transformer, vae } = self;
        let patch = PATCH * PATCH * vae.latent_channels;
        for (left, left_value, right, right_value) in [
            ("transformer in_channels", transformer.in_channels, "4 · vae latent_channels", patch),
            ("transformer out_channels", transformer.outputs(), "4 · vae latent_channels", patch),
            (
                "transformer pooled_projection_dim",
                transformer.pooled_projection_dim,
                "text_encoder hidden_size",
                clip.hidden_size,
            ),
            ("transformer joint_attention_dim", transformer.joint_attention_dim, "text_encoder_2 d_model", t5.d_model),
            ("vae out_channels", vae.out_channels, "the channels of a picture", 3),
        ] {
            if left_value != right_value {
                let (left_value, right_value) = (left_value.to_string(), right_value.to_string());
                return Err(LoadError::Disagree { left, left_value, right, right_value });
            }
        }
        Ok(())
    }

    /// The sizes and properties of the model.
    pub fn spec(&self) -> Spec {
        let scale = self.vae.scale();
        let size_multiple = scale * PATCH;
        let (height, width) = self.vae.sample_size.map_or((SIDE, SIDE), |size| size.height_width());
        let latent = |side: usize| (side / size_multiple).max(1) * PATCH;
        Spec {
            latent_channels: self.vae.latent_channels,
            vae_scale_factor: scale,
            sample_size: (latent(height), latent(width)),
            context_length: self.clip.max_position_embeddings,
            context_width: self.t5.d_model,
            pooled_width: Some(self.clip.hidden_size),
            guidance_embedding: self.transformer.guidance_embeds,
            text_encoders: 2,
            size_multiple,
            input: Input::Latents,
            flow: Some(FlowLevels { token_side: size_multiple as u32, is_linear: true, mu: Mu::Tokens }),
            ..Spec::default()
        }
    }

    /// The number of tokens that the T5 text encoder reads if a request gives no other number, which is also the
    /// largest number: 512 in FLUX.1 dev, 256 in FLUX.1 schnell.
    pub fn sequence_length(&self) -> usize {
        if self.transformer.guidance_embeds { 512 } else { 256 }
    }

    /// The precision of the autoencoder if the other networks have `precision`.
    pub fn vae_precision(&self, precision: Precision) -> Precision {
        if self.vae.force_upcast.unwrap_or(true) { Precision::F32 } else { precision }
    }
}
