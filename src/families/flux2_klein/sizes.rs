//! The configurations of FLUX.2 Klein's networks, from which the demand of their calls follows.

use serde_json::Value;

use crate::{
    families::ModelIndex,
    generation::{FlowLevels, Mu},
    models::{
        QwenTokenizer,
        autoencoder_kl_flux2::AutoencoderKlFlux2Config,
        demand::Demand,
        flux2_transformer2d::Flux2Transformer2DConfig,
        latent_diffusion::{Input, Part, Spec},
        qwen_tokenizer::Answer,
        qwen3_encoder::Qwen3Config,
    },
    weights::{LoadError, ModelFolder},
};

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub text_encoder: Qwen3Config,
    pub transformer: Flux2Transformer2DConfig,
    pub vae: AutoencoderKlFlux2Config,
    /// Whether the model was distilled for few steps without guidance: the key `is_distilled` of `model_index.json`.
    pub is_distilled: bool,
}

impl Sizes {
    /// The denoiser reads the states of the text encoder after each of these numbers of layers.
    pub const STATES: [usize; 3] = [9, 18, 27];
    /// The number of layers of the text encoder that are used.
    pub const DEPTH: usize = 27;
    /// The number of tokens of a prompt, unless a request says otherwise: the default of diffusers' pipelines.
    pub const SEQUENCE: usize = 512;

    /// Reads the configurations. Fails if the networks do not fit together.
    pub fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let [text, transformer, vae] = ["text_encoder", "transformer", "vae"].map(|part| format!("{part}/config.json"));
        let index = ModelIndex::of(folder)?;
        let sizes = Sizes {
            text_encoder: Qwen3Config::read(&text, &folder.json(&text)?)?,
            transformer: Flux2Transformer2DConfig::read(&transformer, &folder.json(&transformer)?)?,
            vae: AutoencoderKlFlux2Config::read(&vae, &folder.json(&vae)?)?,
            is_distilled: index.keys.get("is_distilled").and_then(Value::as_bool).unwrap_or(false),
        };
        let states = Sizes::STATES.len() * sizes.text_encoder.hidden_size;
        let layers = sizes.text_encoder.num_hidden_layers;
        for (path, key, value, fits, wanted) in [
            (
                &transformer,
                "in_channels",
                sizes.transformer.in_channels,
                sizes.transformer.in_channels == sizes.vae.channels(),
                format!("{}, four times the latent_channels of the vae", sizes.vae.channels()),
            ),
            (
                &transformer,
                "joint_attention_dim",
                sizes.transformer.joint_attention_dim,
                sizes.transformer.joint_attention_dim == states,
                format!("{states}, three times the hidden_size of the text_encoder"),
            ),
            (&text, "num_hidden_layers", layers, layers >= Sizes::DEPTH, format!("at least {}", Sizes::DEPTH)),
        ] {
            if !fits {
                let reason = format!("must be {wanted}, not {value}");
                return Err(LoadError::BadKey { path: path.clone(), key: key.into(), reason });
            }
        }
        Ok(sizes)
    }

    /// Reads the tokenizer. Fails if the text encoder has no vector for one of its tokens.
    pub fn tokenizer(&self, folder: &ModelFolder) -> Result<QwenTokenizer, LoadError> {
        let tokenizer = QwenTokenizer::load(folder, "tokenizer", Answer::Direct)?;
        let (largest, vocabulary) = (tokenizer.largest_id() as usize, self.text_encoder.vocab_size);
        if largest >= vocabulary {
            let reason = format!("the id {largest} is not in the vocabulary of {vocabulary} tokens of text_encoder");
            return Err(LoadError::Tokenizer { path: "tokenizer".into(), reason });
        }
        Ok(tokenizer)
    }

    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have. The tokens of
    /// a denoiser call are the tokens of the prompt and of reference pictures.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { .. } => self.text_encoder.demand(Sizes::SEQUENCE, Sizes::DEPTH),
            Part::Denoise { size: [h, w], tokens, adapted, .. } => self.transformer.demand(h * w, tokens, adapted),
            Part::Encode { size } => self.vae.encode_demand(size),
            Part::Decode { size: [h, w] } => self.vae.decode_demand(h, w),
            Part::DecodeTiny { .. } => Demand::default(),
        }
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        let scale = self.vae.scale();
        Spec {
            latent_channels: self.transformer.in_channels,
            vae_scale_factor: scale,
            sample_size: (1024 / scale, 1024 / scale),
            context_length: Sizes::SEQUENCE,
            context_width: self.transformer.width(),
            text_encoders: 1,
            size_multiple: scale,
            input: Input::References,
            is_distilled: self.is_distilled,
            flow: Some(FlowLevels { token_side: scale as u32, is_linear: true, mu: Mu::TokensAndSteps }),
            ..Spec::default()
        }
    }
}
