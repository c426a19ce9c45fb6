//! What a running generation is at.

use serde::{Deserialize, Serialize};

/// The stages of a run, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The model's weights are read.
    Loading,
    /// The prompts are encoded.
    Encoding,
    Denoising,
    /// The latents become pictures.
    Decoding,
    /// The pictures are encoded and stored.
    Saving,
}
