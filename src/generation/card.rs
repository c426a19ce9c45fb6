//! What a model can do, as a request needs to know it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Decoder, SchedulerChoice, Task};

/// A model's capabilities and defaults, read from its folder without loading a weight.
#[derive(Clone, Debug, Default, Serialize)]
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
    /// Largest width and height in pixels, where the network has a bound of its own.
    #[serde(skip)]
    pub max_side_pixels: Option<u32>,
    /// Widths and heights must be multiples of this many pixels.
    pub size_multiple: u32,
    pub default_steps: u32,
    pub default_guidance_scale: f64,
    /// The default for a request with a mask, where that is another.
    #[serde(skip)]
    pub inpaint_guidance_scale: Option<f64>,
    /// Largest `clip_skip`: the text encoder's layers less one, at most 4.
    pub max_clip_skip: u32,
    /// Whether it draws what a text says; others refuse a `prompt`.
    #[serde(skip)]
    pub takes_prompt: bool,
    /// The names of the classes that `class_label` may be, by number; none where it draws whatever it was trained on. A class
    /// that has no name is an empty text.
    #[serde(skip)]
    pub classes: Arc<[String]>,
    /// The scheduler of a request that names none: the name of the model folder's own.
    pub default_scheduler: SchedulerChoice,
    /// The model folder's `scheduler_config.json`, on which every choice of a request is laid.
    #[serde(skip)]
    pub scheduler_config: Map<String, Value>,
    /// How many numbers it is told of the picture's sizes: none, or SDXL's 6 or 5.
    #[serde(skip)]
    pub time_ids: usize,
    /// Whether a negative prompt that nobody gave is another thing than an empty one.
    #[serde(skip)]
    pub zero_negative: bool,
    /// Whether it is told the guidance scale, and computes no row for a negative prompt.
    #[serde(skip)]
    pub guidance_embedding: bool,
    /// Width of its text's hidden states.
    #[serde(skip)]
    pub context_width: usize,
    /// Widths of the embeddings of `text_encoder` and `text_encoder_2`, as far as it has them.
    #[serde(skip)]
    pub text_widths: [Option<usize>; 2],
    /// Whether a classifier guides its samples.
    #[serde(skip)]
    pub class_guidance: bool,
    /// Whether its network predicts the variance of a step, for the scheduler's `variance_type` learned_range.
    #[serde(skip)]
    pub predicts_variance: bool,
    /// Channels of the maps that ControlNets add to.
    #[serde(skip)]
    pub maps: Vec<usize>,
    /// Channels of its latents, and pixels for each of theirs.
    #[serde(skip)]
    pub latents: (usize, usize),
    /// What it makes pictures from.
    pub tasks: Vec<Task>,
    /// What `decoder` of a request may be.
    pub decoders: Vec<Decoder>,
    /// Prompts that this model answers well, for the page and the documentation.
    pub prompts: Vec<String>,
}

impl ModelCard {
    /// The guidance scale of a request that names none.
    pub fn guidance_scale(&self, has_mask: bool) -> f64 {
        self.inpaint_guidance_scale.filter(|_| has_mask).unwrap_or(self.default_guidance_scale)
    }

    /// Whether one can go on with the latents that the other leaves.
    pub fn shares_latents_with(&self, other: &ModelCard) -> bool {
        self.latents == other.latents && self.time_ids > 0 && other.time_ids > 0
    }
}
