//! What the cards of all families have in common.

use serde_json::{Map, Value};

use super::extras::Extras;
use crate::{
    diffusion::SchedulerConfig,
    generation::{ModelCard, SchedulerChoice},
    weights::{LoadError, ModelFolder, float32_bytes},
};

/// Why a folder has no card.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("latentd.json: `{key}`: {reason}")]
    Extras { key: String, reason: String },
    #[error("latentd.json: `{key}`: {value} is not between {least} and {most}")]
    Bound { key: &'static str, value: f64, least: f64, most: f64 },
    #[error("the scheduler (model_index.json, scheduler/scheduler_config.json): {0}")]
    Scheduler(String),
}

/// What requests get that do not say, where `latentd.json` does not say it either.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    /// Pixels.
    pub width: u32,
    pub height: u32,
    pub steps: u32,
    pub guidance_scale: f64,
}

/// A card with what every family has: the name, the scheduler, the defaults and what `latentd.json` says. The family fills in
/// sizes, tasks and what else its recipe takes.
pub(super) fn base(
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
        default_scheduler,
        scheduler_config,
        prompts: extras.prompts.clone(),
        ..ModelCard::default()
    })
}

/// Bytes of the tensors of these parts as float32, from the heads of their files: (part, name of its weights' file). What small
/// layers keep of their weights as Winograd's algorithm wants them comes on top of that.
///
/// # Errors
/// A part's files are missing or broken.
pub(super) fn bytes(folder: &ModelFolder, parts: &[(&str, &str)]) -> Result<u64, LoadError> {
    let part = |bytes: u64, (part, stem): &(&str, &str)| Ok(bytes.saturating_add(float32_bytes(folder, part, stem)?));
    parts.iter().try_fold(0, part)
}
