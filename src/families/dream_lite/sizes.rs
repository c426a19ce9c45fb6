//! The configurations of DreamLite's networks, from which the demand of their calls follows.

use crate::{
    families::ModelIndex,
    generation::{FlowLevels, Mu},
    models::{
        autoencoder_tiny::AutoencoderTinyConfig,
        demand::Demand,
        dream_lite_unet::DreamLiteUNetConfig,
        latent_diffusion::{Input, Part, Spec},
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
        qwen3_vl::{Chat, Qwen3VlConfig, Qwen3VlTokenizer, SIDE},
    },
    weights::{LoadError, ModelFolder},
};

/// The class of diffusers' pipeline for the model without guidance.
pub(super) const MOBILE: &str = "DreamLiteMobilePipeline";

/// The number of tokens of a prompt that the model reads, with the text of the chat around it. diffusers reads prompts
/// of any length.
pub(super) const SEQUENCE: usize = 500;

/// The configurations of a folder's networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub text_encoder: Qwen3VlConfig,
    pub unet: DreamLiteUNetConfig,
    pub vae: AutoencoderTinyConfig,
    /// Whether the model was distilled for few steps without guidance: the class [`MOBILE`].
    pub is_mobile: bool,
}

impl Sizes {
    /// Reads the configurations. Fails if the networks do not fit together.
    pub fn read(folder: &ModelFolder) -> Result<Sizes, LoadError> {
        let [text, unet, vae] = ["text_encoder", "unet", "vae"].map(|part| format!("{part}/config.json"));
        let sizes = Sizes {
            text_encoder: Qwen3VlConfig::read(&text, &folder.json(&text)?)?,
            unet: DreamLiteUNetConfig::read(&unet, &folder.json(&unet)?)?,
            vae: AutoencoderTinyConfig::read_both(&vae, &folder.json(&vae)?)?,
            is_mobile: ModelIndex::of(folder)?.class() == Some(MOBILE),
        };
        for (key, value, wanted, what) in [
            ("in_channels", sizes.unet.in_channels, sizes.vae.latent_channels, "the latent_channels of the vae"),
            (
                "encoder_hid_dim",
                sizes.unet.encoder_hid_dim,
                sizes.text_encoder.text.hidden_size,
                "the hidden_size of the text_encoder",
            ),
        ] {
            if value != wanted {
                let reason = format!("must be {wanted}, {what}, not {value}");
                return Err(LoadError::BadKey { path: unet, key: key.into(), reason });
            }
        }
        Ok(sizes)
    }

    /// Reads the tokenizer. Fails if it does not fit the text encoder.
    pub fn tokenizer(&self, folder: &ModelFolder) -> Result<Qwen3VlTokenizer, LoadError> {
        Qwen3VlTokenizer::load(folder, &self.text_encoder)
    }

    /// The tokenizer, in the form that tells how much of a prompt the model reads.
    pub fn prompt_tokenizers(&self, folder: &ModelFolder) -> Result<PromptTokenizers, LoadError> {
        Ok(PromptTokenizers(vec![PromptTokenizer::Qwen3Vl { tokenizer: self.tokenizer(folder)?, length: SEQUENCE }]))
    }

    /// The maximum number of tokens of a text for the U-Net, with or without the tokens of a picture.
    pub fn tokens(&self, with_picture: bool) -> usize {
        let picture = self.text_encoder.picture_tokens([SIDE as usize; 2]).unwrap_or(0);
        SEQUENCE + if with_picture { picture } else { 0 }
    }

    /// The work and memory of one row of a call; zero for kinds of calls that this family does not have.
    pub fn demand(&self, part: Part) -> Demand {
        match part {
            Part::Text { sees } => {
                let chat = if sees { Chat::Edit } else { Chat::Generate };
                let see = if sees { self.text_encoder.see_demand([SIDE as usize; 2]) } else { Demand::default() };
                let tokens = self.tokens(sees);
                let read = self.text_encoder.demand(chat.dropped() + tokens);
                see.then(read).then(self.unet.text_demand(tokens))
            }
            Part::Denoise { size, tokens, .. } => self.unet.demand(size, tokens),
            Part::Encode { size } => self.vae.encode_demand(size),
            Part::Decode { size } | Part::DecodeTiny { size } => self.vae.demand(size),
        }
    }

    /// The sizes of the model.
    pub fn spec(&self) -> Spec {
        let scale = self.vae.scale();
        Spec {
            latent_channels: self.unet.in_channels,
            vae_scale_factor: scale,
            sample_size: (1024 / scale, 1024 / scale),
            context_length: self.tokens(true),
            masks_padding: true,
            context_width: self.unet.cross_attention_dim,
            text_encoders: 1,
            size_multiple: 2 * scale,
            tiny_decoder: true,
            input: Input::Picture,
            flow: Some(FlowLevels { token_side: 2 * scale as u32, is_linear: true, mu: Mu::Tokens }),
            is_distilled: self.is_mobile,
            always_guided: !self.is_mobile,
            ..Spec::default()
        }
    }
}
