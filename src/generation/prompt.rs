//! The syntax of prompts: weights, chunks and LoRA tags.

mod chunks;
mod lora_tags;
mod weighted;

use serde::{Deserialize, Serialize};

pub use chunks::{Chunks, MAX_CHUNKS, Token, chunks, least_chunks};
pub use lora_tags::{LoraTag, lora_tags};
pub use weighted::{Span, weighted};

/// The syntax of a request's prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptSyntax {
    /// Plain text: no character has a special meaning.
    #[default]
    Plain,
    /// Brackets set the weights of words, and long prompts are split into chunks; see [`weighted`] and [`chunks`].
    Weighted,
}
