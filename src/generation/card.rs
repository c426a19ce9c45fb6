//! The capabilities and defaults of a model, which requests are checked against.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Decoder, Draw, Field, FlowLevels, Limits, LogSnr, Motion, Precision, SchedulerChoice, Source, Task, WorkKind,
    field::Bounds, table,
};

/// The capabilities and defaults of a model, read from its folder without loading weights.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModelCard {
    /// The model's name in the API: the name of its folder.
    pub name: String,
    /// One sentence for people; may be empty.
    pub description: String,
    /// Native width and height in pixels, the defaults of a request.
    pub default_width: u32,
    pub default_height: u32,
    /// Smallest width and height in pixels.
    pub min_side_pixels: u32,
    /// Largest width and height in pixels, if the network has a limit of its own.
    #[serde(skip)]
    pub max_side_pixels: Option<u32>,
    /// Widths and heights must be multiples of this many pixels.
    pub size_multiple: u32,
    pub default_steps: u32,
    pub default_guidance_scale: f64,
    pub default_precision: Precision,
    /// Default guidance scale of a request with a mask, if it differs from `default_guidance_scale`.
    #[serde(skip)]
    pub inpaint_guidance_scale: Option<f64>,
    /// Largest `clip_skip`: one less than the number of layers of the text encoder, at most 4.
    pub max_clip_skip: u32,
    /// Whether the model takes a prompt. Other models refuse the field `prompt`.
    #[serde(skip)]
    pub takes_prompt: bool,
    /// Names of the classes for `class_label`, indexed by class number. Empty for a model without classes; a class
    /// without a name is an empty string.
    #[serde(skip)]
    pub classes: Arc<[String]>,
    /// The scheduler of a request without the field `scheduler`: the model folder's own scheduler, as a name if latentd
    /// has a name for this scheduler.
    pub default_scheduler: SchedulerChoice,
    /// The model folder's `scheduler_config.json`. The scheduler of a request overrides keys of this file.
    #[serde(skip)]
    pub scheduler_config: Map<String, Value>,
    /// Number of micro-conditioning values (diffusers' time ids): 6 or 5 for models like SDXL, otherwise 0.
    #[serde(skip)]
    pub time_id_count: usize,
    /// The number of text encoders; each can have a prompt of its own.
    #[serde(skip)]
    pub text_encoders: usize,
    /// The default and the largest number of tokens of the text encoder whose length a request may choose.
    #[serde(skip)]
    pub sequence_lengths: Option<(u32, u32)>,
    /// The number of layers that skip-layer guidance can leave out; 0 for a model without it.
    #[serde(skip)]
    pub skippable_layers: u32,
    /// Whether a missing negative prompt is embedded as zeros; an empty negative prompt is not.
    #[serde(skip)]
    pub zero_negative: bool,
    /// Whether the guidance scale is an input of the network, which then needs no row for a negative prompt.
    #[serde(skip)]
    pub guidance_embedding: bool,
    /// Whether guidance by the negative prompt has a scale of its own, `true_guidance_scale`.
    #[serde(skip)]
    pub true_guidance: bool,
    /// Whether the model takes no `guidance_scale`.
    #[serde(skip)]
    pub no_guidance_scale: bool,
    /// The number of blocks of a denoiser that is a transformer, where a block with a second attention counts twice; 0
    /// for a U-Net. Models with different numbers can use different LoRAs.
    #[serde(skip)]
    pub transformer_blocks: usize,
    /// How a model of flow matching chooses its noise levels; `None` for models whose scheduler alone chooses them.
    #[serde(skip)]
    pub flow: Option<FlowLevels>,
    /// Width of the prompt's hidden states, summed over all text encoders.
    #[serde(skip)]
    pub context_width: usize,
    /// Number of tokens that a text encoder reads at a time, including the start token and the end token; 0 for a model
    /// without prompts.
    #[serde(skip)]
    pub context_length: usize,
    /// Whether prompts may have weights: the `prompt_syntax` `weighted`.
    #[serde(skip)]
    pub weighted_prompts: bool,
    /// Widths of the token embeddings of `text_encoder` and `text_encoder_2`, with `None` for a text encoder that the
    /// model does not have.
    #[serde(skip)]
    pub text_widths: [Option<usize>; 2],
    /// Whether the model samples with classifier guidance.
    #[serde(skip)]
    pub classifier_guidance: bool,
    /// Whether the network predicts the variance of a step, as the scheduler's `variance_type` `learned_range`
    /// requires.
    #[serde(skip)]
    pub predicts_variance: bool,
    /// Whether only the class of the model's own scheduler fits the network's predictions.
    #[serde(skip)]
    pub own_scheduler_class_only: bool,
    /// What is added to the guidance scale of a request: 1 for models whose guidance is `cond + s · (cond − uncond)`,
    /// where a scale of 0 means no guidance; 0 for all other models.
    #[serde(skip)]
    pub guidance_offset: u32,
    /// Whether the model was distilled to draw without guidance.
    #[serde(skip)]
    pub is_distilled: bool,
    /// Whether the model draws with guidance at every scale, also at those that switch off the guidance of other
    /// models.
    #[serde(skip)]
    pub always_guided: bool,
    /// The default of `image_guidance_scale`; `None` for models without guidance towards a picture.
    #[serde(skip)]
    pub image_guidance_scale: Option<f64>,
    /// Whether the model edits one picture by drawing the result side by side with this picture. The text encoder of
    /// such a model sees the picture, too.
    #[serde(skip)]
    pub edits_beside: bool,
    /// Whether the model takes the fields of [`GuidanceLimits`](super::GuidanceLimits).
    #[serde(skip)]
    pub limits_guidance: bool,
    /// Channels of the U-Net's feature maps that ControlNets add residuals to.
    #[serde(skip)]
    pub maps: Vec<usize>,
    /// The number of channels of the latents, and how many pixels of a picture one latent pixel is wide and high.
    #[serde(skip)]
    pub latents: (usize, usize),
    /// The kinds of requests that the model accepts.
    pub tasks: Vec<Task>,
    /// The values that the field `decoder` of a request may have.
    pub decoders: Vec<Decoder>,
    /// Example prompts that work well, for the page and the documentation.
    pub prompts: Vec<String>,
    /// The properties of the sounds that the model makes; `None` for a model that makes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sound: Option<SoundCard>,
    /// The properties of the films that the model makes; `None` for a model that makes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub film: Option<FilmCard>,
    /// The number of groups of the norms of a U-Net that motion adapters may extend; `None` for other models.
    #[serde(skip)]
    pub motion_groups: Option<usize>,
    /// The motion adapters with which this model of pictures makes films.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub motion_adapters: Vec<MotionAdapterCard>,
    /// The motion adapter of a request without `motion_adapter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_motion_adapter: Option<String>,
}

/// A motion adapter that fits a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MotionAdapterCard {
    pub name: String,
    /// The most frames of a film.
    pub max_frames: u32,
}

/// The properties of the sounds of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SoundCard {
    /// Samples per second and channel.
    pub sample_rate: u32,
    pub channels: u32,
    /// The length of a sound of a request without `seconds`.
    pub default_seconds: f64,
    /// The length of the shortest sound, in seconds.
    pub least_seconds: f64,
    /// The default range of the noise levels of a model that was trained by flow matching. Requests for such a model
    /// may also ask for longer latents. `None` for models whose scheduler alone chooses the noise levels.
    #[serde(skip)]
    pub log_snr: Option<LogSnr>,
}

/// The properties of the films of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FilmCard {
    /// The number of frames of a request without `frames`.
    pub default_frames: u32,
    /// The number of frames minus 1 must be a multiple of this.
    pub frames_multiple: u32,
    /// Frames per second of a request without `fps`.
    pub default_fps: u32,
    /// The defaults of the settings of the motion; `None` for models that do not take these settings.
    #[serde(skip)]
    pub motion: Option<Motion>,
    /// Whether the result depends on how many frames are decoded at a time, the field `decode_chunk_size`. The default
    /// is all frames.
    #[serde(skip)]
    pub decodes_in_chunks: bool,
    /// Whether the model has two denoisers, each with a guidance scale of its own.
    #[serde(skip)]
    pub has_second_guidance: bool,
}

impl ModelCard {
    /// The kind of work that the model does. A model of pictures that also makes films, with a motion adapter, draws.
    pub fn work_kind(&self) -> WorkKind {
        match (&self.sound, &self.film) {
            (Some(_), _) => WorkKind::Sound,
            (None, Some(_)) if self.motion_adapters.is_empty() => WorkKind::Film,
            (None, _) => WorkKind::Draw,
        }
    }

    /// Whether the model does work of this kind.
    pub fn does(&self, kind: WorkKind) -> bool {
        kind == self.work_kind() || (kind == WorkKind::Film && self.film.is_some())
    }

    /// The most frames of a film with any motion adapter on a server with these limits, 1 or more.
    pub fn most_frames(&self, limits: &Limits) -> u32 {
        let of_adapters = self.motion_adapters.iter().map(|adapter| adapter.max_frames).max();
        limits.max_frames.min(of_adapters.unwrap_or(u32::MAX)).max(1)
    }

    /// The card with the defaults of a server that has these limits.
    pub fn within(&self, limits: &Limits) -> ModelCard {
        let on = Bounds { card: self, limits };
        let of = |field: &Field| (field.default)(&on).and_then(|value| value.as_f64());
        let sound = self
            .sound
            .map(|sound| SoundCard { default_seconds: of(&table::SECONDS).unwrap_or(sound.default_seconds), ..sound });
        let film = self.film.map(|film| FilmCard {
            default_frames: of(&table::FRAMES).map_or(film.default_frames, |frames| frames as u32),
            ..film
        });
        ModelCard { sound, film, ..self.clone() }
    }

    /// The default guidance scale of a request with or without a mask.
    pub fn guidance_scale(&self, has_mask: bool) -> f64 {
        self.inpaint_guidance_scale.filter(|_| has_mask).unwrap_or(self.default_guidance_scale)
    }

    /// Whether this drawing needs a second prediction in each step, for the negative prompt.
    pub fn is_guided(&self, draw: &Draw) -> bool {
        let scale = draw.prompt_guidance(self.guidance_embedding);
        (scale + f64::from(self.guidance_offset) > 1.0 || self.always_guided) && !self.is_distilled
    }

    /// The most pictures of a request without a mask.
    pub fn most_pictures(&self) -> usize {
        if self.tasks.contains(&Task::Edit) && !self.edits_beside { Source::MOST_REFERENCES } else { 1 }
    }

    /// Whether the model adds noise to a picture, or to a part of it, and draws over it.
    pub fn draws_over_pictures(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::ImageToImage | Task::Inpaint))
    }

    /// Whether either model can refine the latents of the other model: both have the same kind of latents, and both
    /// take the micro-conditioning of SDXL.
    pub fn shares_latents_with(&self, other: &ModelCard) -> bool {
        self.latents == other.latents && self.time_id_count > 0 && other.time_id_count > 0
    }
}
