//! The configurations and tokenizers of a folder, checked, without its weights.

use serde_json::{Map, Value};

use super::text::Tokenizers;
use crate::{
    device::Precision,
    diffusion::SchedulerConfig,
    families::ModelIndex,
    generation::FlowLevels,
    models::{
        autoencoder_kl::AutoencoderKlConfig,
        clip_text::ClipTextConfig,
        flux_transformer2d::FluxTransformer2DConfig,
        latent_diffusion::{Input, Spec},
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
    pub clip: ClipTextConfig,
    pub t5: T5Config,
    pub transformer: FluxTransformer2DConfig,
    pub vae: AutoencoderKlConfig,
}

/// The parts that are loaded, with the stems of their weight files.
pub(super) const PARTS: [(&str, &str); 4] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("transformer", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];

/// The parts that a folder may have, with the classes that can be loaded. An empty list accepts every class.
const CLASSES: [(&str, &[&str]); 9] = [
    ("scheduler", &[]), // its class is checked when a sampler is chosen
    ("text_encoder", &["CLIPTextModel"]),
    ("text_encoder_2", &["T5EncoderModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("tokenizer_2", &["T5Tokenizer", "T5TokenizerFast"]),
    ("transformer", &["FluxTransformer2DModel"]),
    ("vae", &["AutoencoderKL"]),
    // Both belong to IP adapters, which are not supported; folders list them without a class.
    ("image_encoder", &[]),
    ("feature_extractor", &[]),
];

/// Latent pixels of a patch along one side: a token of the transformer.
pub(super) const PATCH: usize = 2;

/// The side of the pictures that the published models were trained on, for autoencoders that do not tell it.
const SIDE: usize = 1024;

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
        let (clip, t5) = (config("text_encoder")?, config("text_encoder_2")?);
        let (transformer, vae) = (config("transformer")?, config("vae")?);
        let sizes = Sizes {
            clip: ClipTextConfig::read(&clip.0, &clip.1)?,
            t5: T5Config::read(&t5.0, &t5.1)?,
            transformer: FluxTransformer2DConfig::read(&transformer.0, &transformer.1)?,
            vae: AutoencoderKlConfig::read(&vae.0, &vae.1)?,
        };
        sizes.agree()?;
        let tokenizers = Tokenizers::read(folder, &sizes)?;
        let mut scheduler_config = SchedulerConfig::given(folder.json("scheduler/scheduler_config.json")?);
        let notes = SchedulerConfig::take_class(&index.keys, &mut scheduler_config).into_iter().collect();
        Ok(Configurations { sizes, tokenizers, scheduler_config, notes })
    }
}

fn check_parts(index: &ModelIndex) -> Result<(), LoadError> {
    for (key, value) in index.keys.iter().filter(|(key, _)| !key.starts_with('_')) {
        let Some((_, classes)) = CLASSES.iter().find(|(part, _)| part == key) else {
            return Err(LoadError::UnknownKey {
                path: ModelIndex::PATH.into(),
                key: key.clone(),
                value: value.clone(),
            });
        };
        if !classes.is_empty() && !index.part(key).is_some_and(|class| classes.contains(&class)) {
            let (path, supported) = (ModelIndex::PATH.into(), classes.join(", "));
            return Err(LoadError::UnsupportedKey { path, key: key.clone(), value: value.clone(), supported });
        }
    }
    Ok(())
}

impl Sizes {
    /// Checks that the parts fit each other.
    fn agree(&self) -> Result<(), LoadError> {
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
            flow: Some(FlowLevels { token_side: size_multiple as u32, is_linear: true }),
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
