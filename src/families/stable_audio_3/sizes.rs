//! The configurations of a Stable Audio 3 folder, and what follows from them.

use crate::{
    models::{
        GemmaTokenizer,
        autoencoder_same::AutoencoderSameConfig,
        demand::Demand,
        duration_embedder::DurationEmbedderConfig,
        latent_diffusion::{Part, Spec, WaveformSpec},
        stable_audio_3_dit::StableAudio3DiTConfig,
        t5_gemma_encoder::T5GemmaConfig,
    },
    weights::{LoadError, ModelFolder},
};

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub text_encoder: T5GemmaConfig,
    pub duration_embedder: DurationEmbedderConfig,
    pub transformer: StableAudio3DiTConfig,
    pub vae: AutoencoderSameConfig,
}

impl Sizes {
    /// Maximum number of tokens of a prompt, as in diffusers' pipeline.
    pub const TOKENS: usize = 256;

    /// Reads the configurations. Fails if the networks do not fit together.
    pub fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let [text_encoder, duration_embedder, transformer, vae] =
            ["text_encoder", "duration_embedder", "transformer", "vae"].map(|part| format!("{part}/config.json"));
        let sizes = Sizes {
            text_encoder: T5GemmaConfig::read(&text_encoder, &folder.json(&text_encoder)?)?,
            duration_embedder: DurationEmbedderConfig::read(&duration_embedder, &folder.json(&duration_embedder)?)?,
            transformer: StableAudio3DiTConfig::read(&transformer, &folder.json(&transformer)?)?,
            vae: AutoencoderSameConfig::read(&vae, &folder.json(&vae)?)?,
        };
        let of = &sizes.transformer;
        let (text, duration) = (sizes.text_encoder.hidden_size, sizes.duration_embedder.output_dim);
        let embedder = "the output_dim of the duration_embedder";
        for (key, value, wanted, what) in [
            ("io_channels", of.io_channels, sizes.vae.latent_dim, "the latent_dim of the vae"),
            ("cond_token_dim", of.cond_token_dim, text, "the hidden_size of the text_encoder"),
            // One token more than the text has: it stands for the length of the sound.
            ("cond_token_dim", of.cond_token_dim, duration, embedder),
            ("global_cond_dim", of.global_cond_dim, duration, embedder),
        ] {
            if value != wanted {
                let reason = format!("must be {wanted}, {what}, not {value}");
                return Err(LoadError::BadKey { path: transformer, key: key.into(), reason });
            }
        }
        Ok(sizes)
    }

    /// Reads the tokenizer. Fails if the text encoder has no vector for one of its tokens.
    pub fn tokenizer(&self, folder: &ModelFolder) -> Result<GemmaTokenizer, LoadError> {
        let tokenizer = GemmaTokenizer::load(folder, "tokenizer", Sizes::TOKENS)?;
        let (largest, known) = (tokenizer.largest_id(), self.text_encoder.vocab_size);
        if largest as usize >= known {
            let reason = format!("the vocabulary has the id {largest}, and the text encoder has {known} ids");
            return Err(LoadError::Tokenizer { path: "tokenizer".into(), reason });
        }
        Ok(tokenizer)
    }

    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => self.text_encoder.demand(Sizes::TOKENS),
            // The length of the sound is one more token.
            Part::Denoise { size: [length, _], tokens, .. } => self.transformer.demand(length, tokens + 1),
            Part::Decode { size: [length, _] } => self.vae.decode_demand(length),
            Part::Encode { .. } | Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        Spec {
            latent_channels: self.transformer.io_channels,
            vae_scale_factor: 1,
            sample_size: (1, 1),
            context_length: Sizes::TOKENS,
            context_width: self.transformer.cond_token_dim,
            time_id_count: 1,
            text_encoders: 1,
            waveform: Some(self.waveform()),
            ..Spec::default()
        }
    }

    pub fn waveform(&self) -> WaveformSpec {
        WaveformSpec {
            sample_rate: self.vae.sampling_rate,
            samples_per_latent: self.vae.samples_per_latent(),
            channels: self.vae.audio_channels,
        }
    }
}
