//! The configurations of PixArt's networks, and its tokenizer.

use crate::{
    families::ModelIndex,
    models::{
        T5Tokenizer,
        autoencoder_kl::AutoencoderKlConfig,
        demand::Demand,
        latent_diffusion::{Part, Spec},
        pixart_transformer2d::PixArtTransformer2DConfig,
        t5_encoder::T5Config,
    },
    weights::{LoadError, ModelFolder},
};

/// The largest `max_sequence_length` of a request. T5 was trained with texts of 512 tokens.
pub const LONGEST: usize = 512;

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub text_encoder: T5Config,
    pub transformer: PixArtTransformer2DConfig,
    pub vae: AutoencoderKlConfig,
    /// The number of tokens of a prompt that T5 reads if the request does not choose `max_sequence_length`. The model
    /// was trained with this number.
    pub context_length: usize,
}

impl Sizes {
    /// Reads the configurations. Fails if the networks do not fit together.
    pub fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let [text_encoder, transformer, vae] =
            ["text_encoder", "transformer", "vae"].map(|p| format!("{p}/config.json"));
        let sizes = Sizes {
            text_encoder: T5Config::read(&text_encoder, &folder.json(&text_encoder)?)?,
            transformer: PixArtTransformer2DConfig::read(&transformer, &folder.json(&transformer)?)?,
            vae: AutoencoderKlConfig::read(&vae, &folder.json(&vae)?)?,
            context_length: match ModelIndex::of(folder)?.class() {
                Some("PixArtAlphaPipeline") => 120,
                _ => 300,
            },
        };
        let (channels, latents) = (sizes.transformer.in_channels, sizes.vae.latent_channels);
        let outputs = sizes.transformer.outputs();
        let (width, states) = (sizes.transformer.caption_channels, sizes.text_encoder.d_model);
        let bad =
            |key: &str, reason: String| Err(LoadError::BadKey { path: transformer.clone(), key: key.into(), reason });
        if channels != latents {
            return bad("in_channels", format!("must be {latents}, the latent_channels of the vae, not {channels}"));
        }
        if outputs != channels && outputs != 2 * channels {
            return bad("out_channels", format!("must be {channels} or {}, not {outputs}", 2 * channels));
        }
        if width != states {
            return bad("caption_channels", format!("must be {states}, the d_model of the text_encoder, not {width}"));
        }
        Ok(sizes)
    }

    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => self.text_encoder.demand(LONGEST),
            Part::Denoise { size, tokens, .. } => self.transformer.demand(size, tokens),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::Encode { .. } | Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        let (side, scale) = (self.transformer.sample_size, self.vae.scale());
        Spec {
            latent_channels: self.transformer.in_channels,
            vae_scale_factor: scale,
            sample_size: (side, side),
            context_length: self.context_length,
            masks_padding: true,
            context_width: self.text_encoder.d_model,
            text_encoders: 1,
            size_multiple: self.transformer.patch_size * scale,
            ..Spec::default()
        }
    }
}

/// The tokenizer of a folder. PixArt was trained with texts in lower case.
pub fn tokenizer(folder: &ModelFolder, sizes: &Sizes) -> Result<T5Tokenizer, LoadError> {
    let tokenizer = T5Tokenizer::load(folder, "tokenizer", sizes.context_length)?.lowercased();
    let (largest, vocabulary) = (tokenizer.largest_id() as usize, sizes.text_encoder.vocab_size);
    if largest >= vocabulary {
        let reason = format!("has the id {largest}, but the text_encoder has only {vocabulary} ids");
        return Err(LoadError::Tokenizer { path: "tokenizer".to_owned(), reason });
    }
    Ok(tokenizer)
}
