//! A model in memory.

use std::sync::Arc;

use super::{LatentRgb, Networks};

/// A loaded model, shared by all its runs.
pub struct Model {
    pub name: String,
    /// Of the name and of the files: no other model in memory has the same, and nothing that was computed by one key is
    /// another's.
    pub key: Arc<str>,
    pub networks: Box<dyn Networks>,
    pub latent_rgb: LatentRgb,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).finish_non_exhaustive()
    }
}
