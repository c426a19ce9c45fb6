//! A model's card, read from its folder.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    diffusion::SchedulerConfig,
    generation::{Decoder, ModelCard, SchedulerChoice, Task},
    models::{
        StableDiffusion,
        latent_diffusion::{Input, Spec},
    },
    pipelines::LatentRgb,
    weights::{LoadError, ModelFolder},
};

/// The optional `latentd.json` of a model folder: what diffusers' files do not say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Extras {
    description: String,
    width: Option<u32>,
    height: Option<u32>,
    min_size: Option<u32>,
    steps: Option<u32>,
    guidance_scale: Option<f64>,
    prompts: Vec<String>,
    preview: Option<LatentRgb>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CardError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("latentd.json: `{key}`: {reason}")]
    Extras { key: String, reason: String },
    #[error("latentd.json: `{key}`: {value} is not between {least} and {most}")]
    Bound { key: &'static str, value: f64, least: f64, most: f64 },
    #[error("the scheduler (model_index.json, scheduler/scheduler_config.json): {0}")]
    Scheduler(String),
}

/// Reads configurations only, no weight.
pub(crate) fn read(name: &str, folder: &ModelFolder) -> Result<ModelCard, CardError> {
    let extras = extras(folder)?;
    let (spec, scheduler_config): (Spec, Map<String, Value>) = StableDiffusion::describe(folder)?;
    let config =
        SchedulerConfig::from_model(&scheduler_config).map_err(|error| CardError::Scheduler(error.to_string()))?;
    let default_scheduler = match config.name() {
        Some(name) => SchedulerChoice::Name(name.to_owned()),
        None => SchedulerChoice::Object(Map::new()),
    };
    let defaults = Defaults::of(&spec);
    let native = |side: usize| (side * spec.vae_scale_factor) as u32;
    Ok(ModelCard {
        name: name.to_owned(),
        description: extras.description,
        default_width: extras.width.unwrap_or(native(spec.sample_size.1)),
        default_height: extras.height.unwrap_or(native(spec.sample_size.0)),
        min_side_pixels: extras.min_size.unwrap_or(64).max(spec.size_multiple as u32),
        size_multiple: spec.size_multiple as u32,
        default_steps: extras.steps.unwrap_or(defaults.steps),
        default_guidance_scale: extras.guidance_scale.unwrap_or(defaults.guidance_scale),
        inpaint_guidance_scale: extras.guidance_scale.or(Some(defaults.inpaint_guidance_scale)),
        max_clip_skip: (spec.text_layers.saturating_sub(1) as u32).min(4),
        time_ids: spec.time_ids,
        zero_negative: spec.zero_negative,
        guidance_embedding: spec.guidance_embedding,
        context_width: spec.context_width,
        text_widths: spec.text_widths,
        maps: spec.maps.clone(),
        latents: (spec.latent_channels, spec.vae_scale_factor),
        default_scheduler,
        scheduler_config,
        tasks: match spec.input {
            // A network that is told how pleasing a picture is was made to better one.
            Input::Latents if spec.time_ids == 5 => vec![Task::ImageToImage, Task::Inpaint],
            Input::Latents => vec![Task::TextToImage, Task::ImageToImage, Task::Inpaint],
            Input::MaskedPicture => vec![Task::Inpaint],
            Input::Picture => vec![Task::InstructPix2Pix],
        },
        decoders: if spec.tiny_decoder { vec![Decoder::Full, Decoder::Tiny] } else { vec![Decoder::Full] },
        prompts: extras.prompts,
    })
}

/// What requests get that do not say: the guidance of diffusers' pipelines, and the steps of latent consistency models.
struct Defaults {
    steps: u32,
    guidance_scale: f64,
    inpaint_guidance_scale: f64,
}

impl Defaults {
    fn of(spec: &Spec) -> Defaults {
        let (steps, guidance_scale, inpaint_guidance_scale) = match (spec.time_ids, spec.guidance_embedding) {
            // LatentConsistencyModelPipeline
            (0, true) => (4, 8.5, 8.5),
            // StableDiffusionPipeline and its neighbors
            (0, false) => (25, 7.5, 7.5),
            // StableDiffusionXLPipeline, …Img2ImgPipeline and …InpaintPipeline
            _ => (25, 5.0, 7.5),
        };
        // A network that only draws under masks has one default.
        let guidance_scale = if spec.input == Input::MaskedPicture { inpaint_guidance_scale } else { guidance_scale };
        Defaults { steps, guidance_scale, inpaint_guidance_scale }
    }
}

/// The folder's own map for previews.
pub(crate) fn latent_rgb(folder: &ModelFolder) -> Result<Option<LatentRgb>, LoadError> {
    // The card was read before, so a file that is no good has been refused already.
    Ok(extras(folder).ok().and_then(|extras| extras.preview))
}

fn extras(folder: &ModelFolder) -> Result<Extras, CardError> {
    if !folder.has("latentd.json") {
        return Ok(Extras::default());
    }
    let json = folder.json("latentd.json")?;
    let extras: Extras = serde_path_to_error::deserialize(Value::Object(json))
        .map_err(|error| CardError::Extras { key: error.path().to_string(), reason: error.into_inner().to_string() })?;
    extras.check()?;
    Ok(extras)
}

impl Extras {
    /// Refuses numbers beyond all that a request can ask for.
    fn check(&self) -> Result<(), CardError> {
        let whole = |value: Option<u32>| value.map(f64::from);
        for (key, value, least, most) in [
            ("width", whole(self.width), 1.0, LARGEST_SIDE),
            ("height", whole(self.height), 1.0, LARGEST_SIDE),
            ("min_size", whole(self.min_size), 1.0, LARGEST_SIDE),
            ("steps", whole(self.steps), 1.0, 1000.0),
            ("guidance_scale", self.guidance_scale, 0.0, 30.0),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(CardError::Bound { key, value, least, most });
            }
        }
        Ok(())
    }
}

/// The longest side of a picture that `latentd.json` may name, in pixels.
const LARGEST_SIDE: f64 = 65536.0;
