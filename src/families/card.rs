//! The parts of model cards that all families share.

use serde_json::{Map, Value};

use super::{ModelIndex, extras::Extras};
use crate::{
    diffusion::SchedulerConfig,
    generation::{ModelCard, SchedulerChoice, Shown},
    weights::{LoadError, ModelFolder, WeightSize},
};

/// Why no model card can be made for a folder.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("latentd.json: `{key}`: {reason}")]
    Extras { key: String, reason: String },
    #[error("latentd.json: `{key}`: {} is not between {least} and {most}", Shown(*value))]
    Bound { key: &'static str, value: f64, least: f64, most: f64 },
    #[error("the scheduler (model_index.json, scheduler/scheduler_config.json): {0}")]
    Scheduler(String),
}

/// A family's defaults for requests. The optional file `latentd.json` in the model's folder can replace them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    pub steps: u32,
    pub guidance_scale: f64,
}

/// A card with what every family has: name, scheduler, defaults, and `extras`, the contents of the optional file
/// `latentd.json` in the model's folder. The family fills in sizes, tasks and everything else that its recipe supports.
pub(super) fn base(
    name: &str,
    extras: &Extras,
    scheduler_config: Map<String, Value>,
    defaults: Defaults,
) -> Result<ModelCard, CardError> {
    if extras.motion_adapter.is_some() {
        let reason = "motion adapters cannot extend this model".to_owned();
        return Err(CardError::Extras { key: "motion_adapter".to_owned(), reason });
    }
    movable_base(name, extras, scheduler_config, defaults)
}

/// As [`base`], for a model that motion adapters may extend.
///
/// # Errors
/// The scheduler is not supported.
pub(super) fn movable_base(
    name: &str,
    extras: &Extras,
    scheduler_config: Map<String, Value>,
    defaults: Defaults,
) -> Result<ModelCard, CardError> {
    let config =
        SchedulerConfig::from_model(&scheduler_config).map_err(|error| CardError::Scheduler(error.to_string()))?;
    let default_scheduler = match config.name() {
        Some(name) => SchedulerChoice::Name(name.to_owned()),
        None => SchedulerChoice::Object(Map::new()),
    };
    Ok(ModelCard {
        name: name.to_owned(),
        description: extras.description.clone(),
        default_width: extras.width.unwrap_or(defaults.width),
        default_height: extras.height.unwrap_or(defaults.height),
        default_steps: extras.steps.unwrap_or(defaults.steps),
        default_guidance_scale: extras.guidance_scale.unwrap_or(defaults.guidance_scale),
        default_precision: extras.precision,
        default_scheduler,
        scheduler_config,
        prompts: extras.prompts.clone(),
        ..ModelCard::default()
    })
}

/// The configuration of the folder's scheduler, with the class of `model_index.json`. Adds to `notes` what users should
/// know about it.
///
/// # Errors
/// The file is missing or broken.
pub(super) fn scheduler(
    folder: &ModelFolder,
    index: &ModelIndex,
    notes: &mut Vec<String>,
) -> Result<Map<String, Value>, LoadError> {
    let mut config = SchedulerConfig::given(folder.json("scheduler/scheduler_config.json")?);
    notes.extend(SchedulerConfig::take_class(&index.keys, &mut config));
    Ok(config)
}

/// The memory of the weights of `parts`, computed from the headers of the weight files. A part is (folder, stem of its
/// weight files).
///
/// # Errors
/// The files of a part are missing or broken.
pub(super) fn size(folder: &ModelFolder, parts: &[(&str, &str)]) -> Result<WeightSize, LoadError> {
    let part = |size: WeightSize, (part, stem): &(&str, &str)| Ok(size.and(WeightSize::read(folder, part, stem)?));
    parts.iter().try_fold(WeightSize::default(), part)
}

/// Like [`size`], for networks whose matrices stay in memory as the files store them.
///
/// # Errors
/// Those of [`size`].
pub(super) fn size_as_stored(folder: &ModelFolder, parts: &[(&str, &str)]) -> Result<WeightSize, LoadError> {
    let part =
        |size: WeightSize, (part, stem): &(&str, &str)| Ok(size.and(WeightSize::read_as_stored(folder, part, stem)?));
    parts.iter().try_fold(WeightSize::default(), part)
}
