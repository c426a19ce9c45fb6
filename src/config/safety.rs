//! The section `[safety]`: the safety checker, and the list of prompts that are refused.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::{ConfigError, words};
use crate::generation::SafetyPolicy;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safety {
    #[serde(deserialize_with = "policy")]
    pub policy: SafetyPolicy,
    /// If empty, each model has its own safety checker, or none.
    pub checker: PathBuf,
    /// If empty, no prompt is refused.
    pub blocked_prompts: PathBuf,
    /// The cosine from which words count as similar, 0.5 to 1; 0 means that meanings are not compared.
    pub blocked_similarity: f32,
}

impl Safety {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.blocked_similarity {
            0.0 | 0.5..=1.0 => Ok(()),
            _ => ConfigError::bound("safety.blocked_similarity", "must be 0 or between 0.5 and 1"),
        }
    }
}

fn policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SafetyPolicy, D::Error> {
    words::one_of(deserializer, &SafetyPolicy::WORDS)
}
