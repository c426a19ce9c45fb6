//! The operator's limits for requests.

use serde::{Deserialize, Serialize};

/// Upper bounds of every request, independent of the model: the section `[limits]` of the settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest width and height, in pixels.
    pub max_side_pixels: u32,
    /// Largest width × height, in pixels.
    pub max_pixels: u64,
    /// Maximum number of images of one generation.
    pub max_images: u32,
    /// Maximum number of sampler steps.
    pub max_steps: u32,
    /// Longest sound, in seconds.
    pub max_seconds: f64,
    /// Maximum number of frames of a film.
    pub max_frames: u32,
    /// Longest prompt and negative prompt, in characters.
    pub max_prompt_chars: usize,
}

/// Limits for tests.
#[cfg(test)]
pub(super) const LIMITS: Limits = Limits {
    max_side_pixels: 2048,
    max_pixels: 1 << 22,
    max_images: 10,
    max_steps: 1000,
    max_seconds: 30.0,
    max_frames: 121,
    max_prompt_chars: 10_000,
};
