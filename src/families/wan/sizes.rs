//! The configurations of Wan's networks, and its tokenizer.

use serde_json::Value;

use super::TRANSFORMERS;
use crate::{
    families::ModelIndex,
    generation::Task,
    models::{
        T5Tokenizer, autoencoder_kl_wan::AutoencoderKlWanConfig, clip_preparation::Preparation,
        clip_vision::ClipVisionConfig, t5_encoder::T5Config, wan_transformer3d::WanTransformer3DConfig,
    },
    pipelines::{PictureUse, WanVideoSizes},
    weights::{LoadError, ModelFolder},
};

/// The configurations of a folder's networks. Fails if the networks do not fit together.
pub(super) fn read(folder: &ModelFolder) -> Result<WanVideoSizes, LoadError> {
    let index = ModelIndex::of(folder)?;
    let [text_encoder, vae] = ["text_encoder", "vae"].map(|part| format!("{part}/config.json"));
    let parts = TRANSFORMERS.into_iter().filter(|part| *part == TRANSFORMERS[0] || index.part(part).is_some());
    let paths: Vec<String> = parts.map(|part| format!("{part}/config.json")).collect();
    let config = |path: &String| WanTransformer3DConfig::read(path, &folder.json(path)?);
    let expand_timesteps = expand_timesteps(&index)?;
    let mut sizes = WanVideoSizes {
        text_encoder: T5Config::read(&text_encoder, &folder.json(&text_encoder)?)?,
        transformers: paths.iter().map(config).collect::<Result<_, _>>()?,
        vae: AutoencoderKlWanConfig::read(&vae, &folder.json(&vae)?)?,
        boundary_ratio: boundary_ratio(&index)?,
        expand_timesteps,
        picture: match (expand_timesteps, begins_with_picture(&index)) {
            (true, _) => Some(PictureUse::FirstFrame),
            (false, true) => Some(PictureUse::Channels),
            (false, false) => None,
        },
        image_encoder: None,
    };
    if sizes.boundary_ratio.is_some() != (paths.len() == TRANSFORMERS.len()) {
        let reason = "must be a number if the folder has a transformer_2, and null otherwise".to_owned();
        return Err(of_index("boundary_ratio", reason));
    }
    let (latents, states) = (sizes.latent_channels(), sizes.text_encoder.d_model);
    let (inputs, of_inputs) = match sizes.picture {
        Some(PictureUse::Channels) => (2 * latents + MASK, "twice the z_dim of the vae and the 4 channels of a mask"),
        _ => (latents, "the z_dim of the vae"),
    };
    let seen = sizes.transformers.first().and_then(|config| config.image_dim);
    for (path, config) in paths.iter().zip(&sizes.transformers) {
        for (key, value, wanted, what) in [
            ("in_channels", config.in_channels, inputs, of_inputs),
            ("out_channels", config.out_channels, latents, "the z_dim of the vae"),
            ("text_dim", config.text_dim, states, "the d_model of the text_encoder"),
        ] {
            if value != wanted {
                let reason = format!("must be {wanted}, {what}, not {value}");
                return Err(LoadError::BadKey { path: path.clone(), key: key.into(), reason });
            }
        }
        let reason = match config.image_dim {
            Some(_) if !begins_with_picture(&index) => "must be null in a model that sees no picture".to_owned(),
            other if other != seen => "must be the same in both transformers".to_owned(),
            _ => continue,
        };
        return Err(LoadError::BadKey { path: path.clone(), key: "image_dim".into(), reason });
    }
    if let Some(width) = seen {
        let path = "image_encoder/config.json";
        let config = ClipVisionConfig::read(path, &folder.json(path)?)?;
        if config.hidden_size != width {
            let reason = format!("must be {width}, the image_dim of the transformer, not {}", config.hidden_size);
            return Err(LoadError::BadKey { path: path.into(), key: "hidden_size".into(), reason });
        }
        sizes.image_encoder = Some(config);
    }
    Ok(sizes)
}

/// The channels of the mask that says which frames are known.
const MASK: usize = 4;

/// Whether every film of the model must begin with a picture.
fn begins_with_picture(index: &ModelIndex) -> bool {
    index.class() == Some("WanImageToVideoPipeline")
}

/// The tasks of a folder.
pub(super) fn tasks(index: &ModelIndex, sizes: &WanVideoSizes) -> Vec<Task> {
    match (begins_with_picture(index), sizes.picture) {
        (true, _) => vec![Task::ImageToVideo],
        (false, Some(_)) => vec![Task::TextToVideo, Task::ImageToVideo],
        (false, None) => vec![Task::TextToVideo],
    }
}

/// How the encoder of pictures sees a picture.
pub(super) fn preparation(folder: &ModelFolder, config: &ClipVisionConfig) -> Result<Preparation, LoadError> {
    Preparation::read_at(folder, "image_processor/preprocessor_config.json", config.image_size)
}

fn boundary_ratio(index: &ModelIndex) -> Result<Option<f64>, LoadError> {
    match index.keys.get("boundary_ratio") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|ratio| (0.0..=1.0).contains(ratio)) {
            Some(ratio) => Ok(Some(ratio)),
            None => Err(of_index("boundary_ratio", format!("must be null or a number from 0 to 1, not {value}"))),
        },
    }
}

fn expand_timesteps(index: &ModelIndex) -> Result<bool, LoadError> {
    match index.keys.get("expand_timesteps") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(expands)) => Ok(*expands),
        Some(value) => Err(of_index("expand_timesteps", format!("must be true or false, not {value}"))),
    }
}

fn of_index(key: &str, reason: String) -> LoadError {
    LoadError::BadKey { path: ModelIndex::PATH.to_owned(), key: key.to_owned(), reason }
}

/// The tokenizer of a folder. Prompts are cleaned as in diffusers.
pub(super) fn tokenizer(folder: &ModelFolder, sizes: &WanVideoSizes) -> Result<T5Tokenizer, LoadError> {
    let tokenizer = T5Tokenizer::load(folder, "tokenizer", WanVideoSizes::TOKENS)?.cleaning();
    let (largest, vocabulary) = (tokenizer.largest_id() as usize, sizes.text_encoder.vocab_size);
    if largest >= vocabulary {
        let reason = format!("has the id {largest}, but the text_encoder has only {vocabulary} ids");
        return Err(LoadError::Tokenizer { path: "tokenizer".to_owned(), reason });
    }
    Ok(tokenizer)
}
