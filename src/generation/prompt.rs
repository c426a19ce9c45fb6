//! What a prompt says beyond its words.

mod chunks;
mod lora_tags;
mod weighted;

use serde::{Deserialize, Serialize};

pub use chunks::{Token, chunks};
pub use lora_tags::{LoraTag, lora_tags};
pub use weighted::{Span, weighted};

/// How prompts are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptSyntax {
    /// Every character is text.
    #[default]
    Plain,
    /// Brackets weigh words, and long prompts are cut into chunks: [`weighted`] and [`chunks`].
    Weighted,
}
