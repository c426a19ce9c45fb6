//! Warnings about an accepted request.

use serde::{Deserialize, Serialize};

/// Something in an accepted request that may make its picture different from what the client expects. The generation
/// runs anyway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A word that programs can compare, such as `prompt_cut`.
    pub code: String,
    /// JSON pointer to the field that the warning is about.
    pub pointer: String,
    /// A sentence for people.
    pub detail: String,
}

impl Warning {
    pub fn new(code: &str, pointer: &str, detail: String) -> Warning {
        Warning { code: code.to_owned(), pointer: pointer.to_owned(), detail }
    }
}
