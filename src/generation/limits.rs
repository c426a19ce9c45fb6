//! The operator's bounds on a request.

use serde::{Deserialize, Serialize};

/// Upper bounds that every request is held to, whatever its model; from the section `[limits]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest width and height, in pixels.
    pub max_side_pixels: u32,
    /// Largest width × height, in pixels.
    pub max_pixels: u64,
    /// Most images of one generation.
    pub max_images: u32,
    /// Most sampler steps.
    pub max_steps: u32,
    /// Longest prompt and negative prompt, in characters.
    pub max_prompt_chars: usize,
}

/// For tests.
#[cfg(test)]
pub(super) const LIMITS: Limits =
    Limits { max_side_pixels: 2048, max_pixels: 1 << 22, max_images: 8, max_steps: 1000, max_prompt_chars: 10_000 };
