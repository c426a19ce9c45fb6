//! The configurations and tokenizers of a folder, checked, without its weights.

use serde_json::{Map, Value};

use super::{sizes::Sizes, text::Tokenizers};
use crate::{
    families::{ModelIndex, card},
    models::{
        autoencoder_kl::AutoencoderKlConfig, clip_text::ClipTextConfig, flux_transformer2d::FluxTransformer2DConfig,
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
        let mut notes = Vec::new();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        Ok(Configurations { sizes, tokenizers, scheduler_config, notes })
    }
}

fn check_parts(index: &ModelIndex) -> Result<(), LoadError> {
    for (key, value) in index.keys.iter().filter(|(key, _)| !key.starts_with('_')) {
        let Some((_, classes)) = CLASSES.iter().find(|(part, _)| part == key) else {
            return Err(LoadError::UnknownKey {
                path: ModelIndex::PATH.into(),
                key: key.clone(),
                value: Box::new(value.clone()),
            });
        };
        if !classes.is_empty() && !index.part(key).is_some_and(|class| classes.contains(&class)) {
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
