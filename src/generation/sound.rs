//! The work of making sounds.

use serde::{Deserialize, Serialize};

use super::{LogSnr, SchedulerChoice, SeedMode};

/// The sounds that the job's model makes, and all parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sound {
    pub prompt: String,
    pub negative_prompt: String,
    /// The length of each sound.
    pub seconds: f64,
    /// How much longer than the sound the latents are, in seconds; `None` for models that make whole spectrograms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_seconds: Option<f64>,
    /// Number of sounds, 1 or more.
    pub n: u32,
    pub steps: u32,
    /// `s` in `uncond + s · (cond − uncond)`; 1 or less switches guidance off.
    pub guidance_scale: f64,
    /// The scheduler of the request, or the model's default scheduler.
    pub scheduler: SchedulerChoice,
    /// η of DDIM: the fraction of DDPM's noise that each step adds, 0 to 1. Other samplers ignore it.
    pub eta: f64,
    /// The bounds of [`LogSnr`]; `None` for models whose scheduler alone chooses the noise levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logsnr_min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logsnr_max: Option<f64>,
    /// Seed of sound 0; sound i uses `seed + i`, unless the mode is [`SeedMode::Batch`].
    pub seed: u64,
    pub seed_mode: SeedMode,
}

impl Sound {
    /// The range of the noise levels; `None` for models whose scheduler alone chooses them.
    pub fn log_snr(&self) -> Option<LogSnr> {
        Some(LogSnr { min: self.logsnr_min?, max: self.logsnr_max? })
    }

    /// The length of the latents in seconds.
    pub fn padded_seconds(&self) -> f64 {
        self.seconds + self.padding_seconds.unwrap_or(0.0)
    }

    /// The seed of sound `index`. With [`SeedMode::Batch`], the seed is the same for every sound.
    pub fn seed_of(&self, index: u32) -> u64 {
        self.seed_mode.seed_of(self.seed, index)
    }

    /// Whether each step needs a second prediction, for the negative prompt.
    pub fn is_guided(&self) -> bool {
        self.guidance_scale > 1.0
    }
}
