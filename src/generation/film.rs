//! The work of making films.

use serde::{Deserialize, Serialize};

use super::{InputImage, LoraUse, SchedulerChoice, SeedMode};

/// The films that the job's model makes, and all parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Film {
    /// Empty for models that take no prompt.
    pub prompt: String,
    pub negative_prompt: String,
    /// The LoRAs that change the weights of a model of pictures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraUse>,
    /// The motion adapter with which a model of pictures makes the films; `None` for models that need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub motion_adapter: Option<String>,
    /// The picture that each film begins with; `None` for models that make films from a prompt alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<InputImage>,
    /// Number of frames of each film, 1 or more.
    pub frames: u32,
    /// Frames per second, 1 or more.
    pub fps: u32,
    /// Width and height in pixels.
    pub width: u32,
    pub height: u32,
    /// Number of films, 1 or more.
    pub n: u32,
    pub steps: u32,
    /// `s` in `uncond + s · (cond − uncond)`; 1 or less switches guidance off. With a [`Motion`], this is the scale of
    /// the last frame.
    pub guidance_scale: f64,
    /// As `guidance_scale`, for the second denoiser of models that have two; `None` for other models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_scale_2: Option<f64>,
    /// `None` for models without these settings.
    #[serde(flatten)]
    pub motion: Option<Motion>,
    /// How many frames the decoder sees at a time, 1 or more. Frames that are decoded together fit each other better,
    /// but take more memory. `None` for models whose decoder does not depend on such chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_chunk_size: Option<u32>,
    /// Number of tokens of the prompt, if the model lets requests choose this number; otherwise `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sequence_length: Option<u32>,
    /// The scheduler of the request, or the model's default scheduler.
    pub scheduler: SchedulerChoice,
    /// Seed of film 0; film i uses `seed + i`, unless the mode is [`SeedMode::Batch`].
    pub seed: u64,
    pub seed_mode: SeedMode,
}

/// The settings of Stable Video Diffusion, with the names and meanings of diffusers' `StableVideoDiffusionPipeline`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Motion {
    /// The guidance scale of the first frame. From there, the scale changes linearly to
    /// [`guidance_scale`](Film::guidance_scale) at the last frame.
    pub min_guidance_scale: f64,
    /// How much moves, 0 to 255.
    pub motion_bucket_id: u32,
    /// The standard deviation of the noise that is added to the picture, whose values are in [−1, 1]; 0 or more.
    pub noise_aug_strength: f64,
}

impl Film {
    /// The seed of film `index`. With [`SeedMode::Batch`], the seed is the same for every film.
    pub fn seed_of(&self, index: u32) -> u64 {
        self.seed_mode.seed_of(self.seed, index)
    }

    /// Whether each step needs a second prediction, without the prompt or the picture.
    pub fn is_guided(&self) -> bool {
        self.guidance_scale > 1.0
    }

    /// The guidance scale of frame `frame`.
    pub fn guidance_of(&self, frame: u32) -> f64 {
        let Some(Motion { min_guidance_scale: first, .. }) = self.motion else { return self.guidance_scale };
        match self.frames {
            0 | 1 => first,
            frames => first + (self.guidance_scale - first) * f64::from(frame) / f64::from(frames - 1),
        }
    }
}
