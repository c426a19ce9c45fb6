//! The section `[safety]`: the safety checker, and the list of prompts that are refused.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::words;
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
}

fn policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SafetyPolicy, D::Error> {
    words::one_of(deserializer, &SafetyPolicy::WORDS)
}
