//! The phases of a running generation.

use serde::{Deserialize, Serialize};

/// The phase of a running generation. The variants are in the order of the phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The model's weights are loaded.
    Loading,
    /// The prompts are encoded.
    Encoding,
    Denoising,
    /// The latents are decoded into pictures.
    Decoding,
    /// The pictures are encoded and stored.
    Saving,
}
