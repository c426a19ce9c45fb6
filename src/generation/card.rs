//! What a model can do, as a request needs to know it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Decoder, SchedulerChoice, Task};

/// A model's capabilities and defaults, read from its folder without loading a weight.
#[derive(Clone, Debug, Serialize)]
pub struct ModelCard {
    /// The name in the API: the folder's name.
    pub name: String,
    /// One sentence for people; may be empty.
    pub description: String,
    /// Native size in pixels, the default of a request.
    pub default_width: u32,
    pub default_height: u32,
    /// Smallest width and height in pixels.
    pub min_side_pixels: u32,
    /// Widths and heights must be multiples of this many pixels.
    pub size_multiple: u32,
    pub default_steps: u32,
    pub default_guidance_scale: f64,
    /// Largest `clip_skip`: the text encoder's layers less one, at most 4.
    pub max_clip_skip: u32,
    /// The scheduler of a request that names none: the name of the model folder's own.
    pub default_scheduler: SchedulerChoice,
    /// The model folder's `scheduler_config.json`, on which every choice of a request is laid.
    #[serde(skip)]
    pub scheduler_config: Map<String, Value>,
    /// What it makes pictures from.
    pub tasks: Vec<Task>,
    /// What `decoder` of a request may be.
    pub decoders: Vec<Decoder>,
    /// Prompts that this model answers well, for the page and the documentation.
    pub prompts: Vec<String>,
}
