//! The description of a model folder: its configurations and tokenizers, checked, without its weights.

use serde_json::{Map, Value};

use crate::{
    diffusion::SchedulerConfig,
    models::{
        ClipTokenizer,
        autoencoder_kl::AutoencoderKlConfig,
        autoencoder_tiny::AutoencoderTinyConfig,
        clip_text::ClipTextConfig,
        latent_diffusion::{Input, Spec},
        legacy,
        text_encoders::EncoderOutput,
        unet2d_condition::UNet2DConditionConfig,
    },
    weights::{LoadError, ModelFolder},
};

/// The subfolder with diffusers' `AutoencoderTiny`. diffusers has no name for this subfolder: its pipelines take an
/// `AutoencoderTiny` instead of the `vae`.
pub(super) const VAE_TINY: &str = "vae_tiny";

/// Everything in a folder except its weights. The configurations are supported and fit each other.
pub(super) struct Description {
    /// Subfolder, tokenizer and configuration of each text encoder, in order.
    pub text: Vec<(&'static str, ClipTokenizer, ClipTextConfig)>,
    pub way: EncoderOutput,
    pub unet_config: UNet2DConditionConfig,
    pub vae_config: AutoencoderKlConfig,
    pub vae_tiny_config: Option<AutoencoderTinyConfig>,
    pub scheduler_config: Map<String, Value>,
    pub spec: Spec,
    /// Notes for users on how the configurations are read.
    pub notes: Vec<String>,
}

impl Description {
    /// Reads the configurations and tokenizers of a folder.
    ///
    /// # Errors
    /// A file is missing or broken, a key is not supported, or the parts do not fit each other.
    pub fn read(folder: &ModelFolder) -> Result<Description, LoadError> {
        let index = folder.json("model_index.json")?;
        check_parts("model_index.json", &index)?;
        let text = text_parts(folder, &index)?;
        let unet_keys = folder.json("unet/config.json")?;
        let unet_config = UNet2DConditionConfig::read("unet/config.json", &unet_keys)?;
        let vae_config = AutoencoderKlConfig::read("vae/config.json", &folder.json("vae/config.json")?)?;
        let tiny_path = format!("{VAE_TINY}/config.json");
        let vae_tiny_config = match folder.has(&tiny_path) {
            true => Some(AutoencoderTinyConfig::read(&tiny_path, &folder.json(&tiny_path)?)?),
            false => None,
        };
        let sample_size = unet_config.sample_size.ok_or_else(|| LoadError::UnsupportedKey {
            path: "unet/config.json".into(),
            key: "sample_size".into(),
            value: Box::new(Value::Null),
            supported: "a size".into(),
        })?;
        let (context_length, text_layers) = agree(&text, &unet_config, &vae_config)?;
        let channels = (unet_config.in_channels, vae_config.latent_channels);
        let input = Input::of(channels.0, channels.1).ok_or_else(|| LoadError::BadKey {
            path: "unet/config.json".into(),
            key: "in_channels".into(),
            reason: format!(
                "must be {} (the latent_channels of the vae), {} (twice as many) or {} (twice as many and 1), not {}",
                channels.1,
                2 * channels.1,
                2 * channels.1 + 1,
                channels.0
            ),
        })?;
        if let Some(tiny) = &vae_tiny_config {
            agree_on_latents(tiny, &vae_config)?;
        }
        let pooled_width = unet_config.added().and_then(|_| text.last()?.2.projection());
        let way = if unet_config.added().is_some() { EncoderOutput::Penultimate } else { EncoderOutput::Last };
        let widths: Vec<usize> = text.iter().map(|(.., text)| text.hidden_size).collect();
        let spec = Spec {
            latent_channels: vae_config.latent_channels,
            vae_scale_factor: vae_config.scale(),
            sample_size: legacy::sample_size(&unet_keys, sample_size.height_width()),
            context_length,
            masks_padding: false,
            context_width: unet_config.text_width(),
            pooled_width,
            time_id_count: time_id_count(&unet_config, pooled_width)?,
            guidance_embedding: unet_config.time_cond_proj_dim.is_some(),
            zero_negative: unet_config.added().is_some()
                && index.get("force_zeros_for_empty_prompt").and_then(Value::as_bool).unwrap_or(true),
            text_encoders: text.len(),
            text_widths: way.placed(&widths),
            text_layers,
            size_multiple: vae_config.scale(),
            maps: unet_config.maps(),
            norm_groups: unet_config.norm_num_groups,
            tiny_decoder: vae_tiny_config.is_some(),
            classes: 0,
            input,
            flow: None,
            guidance_offset: 0,
            is_distilled: false,
            always_guided: false,
            sound: None,
            waveform: None,
        };
        let mut notes = Vec::new();
        notes.extend(unused_shift("vae", vae_config.shift_factor.unwrap_or(0.0)));
        notes.extend(vae_tiny_config.as_ref().and_then(|tiny| unused_shift(VAE_TINY, tiny.shift_factor)));
        let mut scheduler_config = SchedulerConfig::given(folder.json("scheduler/scheduler_config.json")?);
        notes.extend(SchedulerConfig::take_class(&index, &mut scheduler_config));
        // The pipelines of Stable Diffusion 1 and 2 correct old files; the pipelines of Stable Diffusion XL do not.
        let scheduler_config = match unet_config.added() {
            None => legacy::scheduler_config(scheduler_config),
            Some(_) => scheduler_config,
        };
        Ok(Description { text, way, unet_config, vae_config, vae_tiny_config, scheduler_config, spec, notes })
    }
}

/// A note if there is a shift: diffusers' pipelines of Stable Diffusion divide latents by `scaling_factor` and use no
/// shift.
fn unused_shift(part: &str, shift_factor: f64) -> Option<String> {
    let note = || format!("{part}/config.json: shift_factor {shift_factor} is not used, as in diffusers' pipelines");
    (shift_factor != 0.0).then(note)
}

/// The text encoders of the folder, each with its tokenizer.
fn text_parts(
    folder: &ModelFolder,
    index: &Map<String, Value>,
) -> Result<Vec<(&'static str, ClipTokenizer, ClipTextConfig)>, LoadError> {
    let mut parts = Vec::new();
    for (encoder, tokenizer) in [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")] {
        let present = index.get(encoder).and_then(|part| part.get(1)).is_some_and(|class| !class.is_null());
        if present {
            let path = format!("{encoder}/config.json");
            let config = ClipTextConfig::read(&path, &folder.json(&path)?)?;
            let tokenizer = ClipTokenizer::load(folder, tokenizer, config.max_position_embeddings)?;
            parts.push((encoder, tokenizer, config));
        }
    }
    if parts.is_empty() {
        return Err(LoadError::Absent { path: "text_encoder/config.json".into() });
    }
    Ok(parts)
}

/// How many numbers about the sizes of a picture the U-Net takes: 0, 5 or 6.
fn time_id_count(unet: &UNet2DConditionConfig, pooled_width: Option<usize>) -> Result<usize, LoadError> {
    let Some(added) = unet.added() else { return Ok(0) };
    let count = added.time_id_count(pooled_width.unwrap_or(0)).filter(|count| [5, 6].contains(count));
    count.ok_or_else(|| LoadError::BadKey {
        path: "unet/config.json".into(),
        key: "projection_class_embeddings_input_dim".into(),
        reason: format!(
            "must be 5 or 6 times addition_time_embed_dim ({}) plus the width of the prompt's vector ({}), not {}",
            added.time_embed_dim,
            pooled_width.unwrap_or(0),
            added.width,
        ),
    })
}

/// The pipeline classes of Stable Diffusion 1 and 2 whose folders can be loaded.
pub const CLASSES: [&str; 6] = [
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
];

/// The pipeline classes of Stable Diffusion XL whose folders can be loaded.
pub const XL_CLASSES: [&str; 3] =
    ["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"];

/// The parts that a folder may have, with the classes that can be loaded. An empty list accepts every class.
const PARTS: [(&str, &[&str]); 13] = [
    ("scheduler", &[]), // its class is checked when a sampler is chosen
    ("text_encoder", &["CLIPTextModel"]),
    ("text_encoder_2", &["CLIPTextModelWithProjection"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("tokenizer_2", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
    ("feature_extractor", &[]),
    ("image_encoder", &[]),
    ("safety_checker", &[]),
    ("requires_safety_checker", &[]),
    ("force_zeros_for_empty_prompt", &[]),
    // Not used here: whether the U-Net takes a score follows from its configuration.
    ("requires_aesthetics_score", &[]),
];

fn check_parts(path: &str, index: &Map<String, Value>) -> Result<(), LoadError> {
    let unsupported = |key: &str, value: &Value, supported: &str| {
        let (path, key, value, supported) = (path.into(), key.into(), value.clone(), supported.into());
        LoadError::UnsupportedKey { path, key, value: Box::new(value), supported }
    };
    let class = index.get("_class_name").unwrap_or(&Value::Null);
    let all = [CLASSES.as_slice(), &XL_CLASSES].concat();
    if !all.iter().any(|supported| class == supported) {
        return Err(unsupported("_class_name", class, &all.join(", ")));
    }
    for (key, value) in index.iter().filter(|(key, _)| !key.starts_with('_')) {
        let Some((_, classes)) = PARTS.iter().find(|(part, _)| part == key) else {
            return Err(LoadError::UnknownKey { path: path.into(), key: key.clone(), value: Box::new(value.clone()) });
        };
        let class = value.get(1).unwrap_or(&Value::Null);
        let is_fine = |class: &str| classes.is_empty() || classes.contains(&class);
        let may_lack = key.starts_with("text_encoder") || key.starts_with("tokenizer");
        if !class.as_str().map_or(may_lack && class.is_null() || classes.is_empty(), is_fine) {
            return Err(unsupported(key, value, &classes.join(", ")));
        }
    }
    Ok(())
}

/// Checks that the parts fit each other. Returns the number of tokens of a prompt, and the least number of layers of a
/// text encoder.
fn agree(
    text: &[(&'static str, ClipTokenizer, ClipTextConfig)],
    unet: &UNet2DConditionConfig,
    vae: &AutoencoderKlConfig,
) -> Result<(usize, usize), LoadError> {
    let (length, layers) = (text[0].1.length(), text.iter().map(|(.., text)| text.num_hidden_layers).min());
    for (_, tokenizer, text) in text {
        let largest = tokenizer.largest_id() as usize;
        let fits = largest < text.vocab_size;
        agreed(fits, "the tokenizer's largest id", largest, "text_encoder vocab_size", text.vocab_size)?;
        let (ours, theirs) = (tokenizer.length(), length);
        agreed(ours == theirs, "tokenizer_2 prompt length", ours, "tokenizer prompt length", theirs)?;
    }
    let width = text.iter().map(|(.., text)| text.hidden_size).sum();
    let (taken, out, latents) = (unet.text_width(), unet.out_channels, vae.latent_channels);
    agreed(taken == width, "unet cross_attention_dim", taken, "text_encoder hidden_size", width)?;
    agreed(out == latents, "unet out_channels", out, "vae latent_channels", latents)?;
    agreed(vae.out_channels == 3, "vae out_channels", vae.out_channels, "the channels of a picture", 3)?;
    Ok((length, layers.unwrap_or(0)))
}

/// Checks that both decoders decode the same latents to pictures of the same size.
fn agree_on_latents(tiny: &AutoencoderTinyConfig, vae: &AutoencoderKlConfig) -> Result<(), LoadError> {
    for (tiny_key, tiny_value, key, value) in [
        ("vae_tiny latent_channels", tiny.latent_channels, "vae latent_channels", vae.latent_channels),
        ("vae_tiny out_channels", tiny.out_channels, "vae out_channels", vae.out_channels),
        ("vae_tiny pixels per latent pixel", tiny.scale(), "vae pixels per latent pixel", vae.scale()),
    ] {
        agreed(tiny_value == value, tiny_key, tiny_value, key, value)?;
    }
    Ok(())
}

fn agreed(
    fits: bool,
    left: &'static str,
    left_value: usize,
    right: &'static str,
    right_value: usize,
) -> Result<(), LoadError> {
    let (left_value, right_value) = (left_value.to_string(), right_value.to_string());
    if fits { Ok(()) } else { Err(LoadError::Disagree { left, left_value, right, right_value }) }
}
