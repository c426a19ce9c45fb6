//! The configurations and tokenizers of a folder, checked, without its weights.

use serde_json::{Map, Value};

use super::text::Tokenizers;
use crate::{
    device::Precision,
    families::{ModelIndex, card},
    generation::{FlowLevels, Mu},
    models::{
        autoencoder_kl::AutoencoderKlConfig,
        clip_text::ClipTextConfig,
        latent_diffusion::{Input, Spec},
        sd3_transformer2d::Sd3Transformer2DConfig,
        t5_encoder::T5Config,
    },
    weights::{LoadError, ModelFolder},
};

/// Everything in a folder except its weights. The configurations are supported and fit each other.
pub(super) struct Configurations {
    pub sizes: Sizes,
    pub tokenizers: Tokenizers,
    pub scheduler_config: Map<String, Value>,
    /// Notes for users on how the configurations are read.
    pub notes: Vec<String>,
}

/// The configurations of the networks.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// `text_encoder` and `text_encoder_2`.
    pub clip: [ClipTextConfig; 2],
    /// `text_encoder_3`; a folder may lack it.
    pub t5: Option<T5Config>,
    pub transformer: Sd3Transformer2DConfig,
    pub vae: AutoencoderKlConfig,
}

/// The subfolders of the CLIP text encoders.
pub(super) const CLIP: [&str; 2] = ["text_encoder", "text_encoder_2"];
/// The subfolder of the T5 text encoder.
pub(super) const T5: &str = "text_encoder_3";
/// The stem of the weight files of diffusers' networks, and the stem of the weight files of transformers' networks.
pub(super) const WEIGHTS: &str = "diffusion_pytorch_model";
pub(super) const TEXT_WEIGHTS: &str = "model";

/// The parts that a folder may have, with the classes that can be loaded. An empty list accepts every class.
const PARTS: [(&str, &[&str]); 11] = [
    ("scheduler", &[]), // its class is checked when a sampler is chosen
    ("text_encoder", &["CLIPTextModelWithProjection"]),
    ("text_encoder_2", &["CLIPTextModelWithProjection"]),
    ("text_encoder_3", &["T5EncoderModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("tokenizer_2", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("tokenizer_3", &["T5Tokenizer", "T5TokenizerFast"]),
    ("transformer", &["SD3Transformer2DModel"]),
    ("vae", &["AutoencoderKL"]),
    // Both belong to IP adapters, which are not supported; folders list them without a class.
    ("image_encoder", &[]),
    ("feature_extractor", &[]),
];

impl Configurations {
    /// Reads the configurations and tokenizers of a folder.
    ///
    /// # Errors
    /// A file is missing or broken, a key is not supported, or the parts do not fit each other.
    pub fn read(folder: &ModelFolder) -> Result<Configurations, LoadError> {
        let index = ModelIndex::of(folder)?;
        check_parts(&index)?;
        let config = |part: &str| {
            let path = format!("{part}/config.json");
            folder.json(&path).map(|keys| (path, keys))
        };
        let clip = |part| config(part).and_then(|(path, keys)| ClipTextConfig::read(&path, &keys));
        let t5 = match index.part(T5) {
            Some(_) => Some(config(T5).and_then(|(path, keys)| T5Config::read(&path, &keys))?),
            None => None,
        };
        let (transformer, vae) = (config("transformer")?, config("vae")?);
        let sizes = Sizes {
            clip: [clip(CLIP[0])?, clip(CLIP[1])?],
            t5,
            transformer: Sd3Transformer2DConfig::read(&transformer.0, &transformer.1)?,
            vae: AutoencoderKlConfig::read(&vae.0, &vae.1)?,
        };
        sizes.agree()?;
        let tokenizers = Tokenizers::read(folder, &sizes.clip, sizes.t5.as_ref())?;
        let mut notes = Vec::new();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        if sizes.t5.is_none() {
            notes.push(format!("the folder has no {T5}: prompts are read by the CLIP text encoders alone"));
        }
        Ok(Configurations { sizes, tokenizers, scheduler_config, notes })
    }

    /// The sizes and properties of the model.
    pub fn spec(&self) -> Spec {
        self.sizes.spec()
    }
}

fn check_parts(index: &ModelIndex) -> Result<(), LoadError> {
    for (key, value) in index.keys.iter().filter(|(key, _)| !key.starts_with('_')) {
        let Some((_, classes)) = PARTS.iter().find(|(part, _)| part == key) else {
            return Err(LoadError::UnknownKey {
                path: ModelIndex::PATH.into(),
                key: key.clone(),
                value: Box::new(value.clone()),
            });
        };
        let may_lack = ["text_encoder_3", "tokenizer_3"].contains(&key.as_str());
        let fits = index.part(key).map_or(may_lack, |class| classes.contains(&class));
        if !fits && !classes.is_empty() {
            let (path, supported) = (ModelIndex::PATH.into(), classes.join(", "));
            return Err(LoadError::UnsupportedKey {
                path,
                key: key.clone(),
                value: Box::new(value.clone()),
                supported,
            });
        }
    }
    Ok(())
}

impl Sizes {
    /// Checks that the parts fit each other.
    fn agree(&self) -> Result<(), LoadError> {
        let Sizes { clip, t5, transformer, vae } = self;
        let width: usize = clip.iter().map(|text| text.hidden_size).sum();
        let pooled: usize = clip.iter().map(|text| text.projection().unwrap_or(0)).sum();
        let context = transformer.joint_attention_dim;
        for (left, left_value, right, right_value) in [
            ("transformer in_channels", transformer.in_channels, "vae latent_channels", vae.latent_channels),
            ("transformer out_channels", transformer.outputs(), "vae latent_channels", vae.latent_channels),
            ("transformer pooled_projection_dim", transformer.pooled_projection_dim, "CLIP projection_dim", pooled),
            ("vae out_channels", vae.out_channels, "the channels of a picture", 3),
            ("text_encoder_3 d_model", t5.as_ref().map_or(context, |t5| t5.d_model), "joint_attention_dim", context),
            ("CLIP hidden_size", width.max(context), "at most transformer joint_attention_dim", context),
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
        let (side, scale) = (self.transformer.sample_size, self.vae.scale());
        Spec {
            latent_channels: self.vae.latent_channels,
            vae_scale_factor: scale,
            sample_size: (side, side),
            context_length: self.clip[0].max_position_embeddings,
            context_width: self.transformer.joint_attention_dim,
            pooled_width: Some(self.transformer.pooled_projection_dim),
            text_encoders: 2 + usize::from(self.t5.is_some()),
            text_layers: self.clip.iter().map(|text| text.num_hidden_layers).min().unwrap_or(0),
            size_multiple: scale * self.transformer.patch_size,
            input: Input::Latents,
            flow: Some(FlowLevels {
                token_side: (scale * self.transformer.patch_size) as u32,
                is_linear: false,
                mu: Mu::Tokens,
            }),
            ..Spec::default()
        }
    }

    /// The parts that are loaded, with the stems of their weight files.
    pub fn parts(&self) -> Vec<(&'static str, &'static str)> {
        let t5 = self.t5.as_ref().map(|_| (T5, TEXT_WEIGHTS));
        let clip = CLIP.map(|part| (part, TEXT_WEIGHTS));
        clip.into_iter().chain(t5).chain([("transformer", WEIGHTS), ("vae", WEIGHTS)]).collect()
    }

    /// The precision of the autoencoder if the other networks have `precision`.
    pub fn vae_precision(&self, precision: Precision) -> Precision {
        if self.vae.force_upcast.unwrap_or(true) { Precision::F32 } else { precision }
    }
}
