//! A model in memory.

use std::{any::Any, sync::Arc};

use super::{Frame, NetworkError};
use crate::{
    models::{adapters::Adapter, text_encoders::LearnedToken},
    weights::LoadError,
};

/// A loaded model, shared by all its runs.
pub struct Model {
    pub name: String,
    /// Of the name and of the files: no other model in memory has the same, and nothing that was computed by one key is
    /// another's.
    pub key: Arc<str>,
    /// The family whose recipe draws with it.
    pub family: &'static str,
    pub networks: Box<dyn Loaded>,
}

/// The networks of a model as those see them who do not know its family. A family brings a type of its own with this trait;
/// its recipes and calls get it back from [`Model::networks`].
pub trait Loaded: Any + Send + Sync {
    /// A rough picture of a result while it is drawn, from the sampler's present estimate (C, h, w). Made on the engine's
    /// thread, so it must cost next to nothing.
    fn sketch(&self, estimate: &[f32], shape: [usize; 3]) -> Frame;

    /// Whether the recipe itself makes better previews by a network, and hands them to
    /// [`Compute::show`](super::Compute::show).
    fn has_preview_network(&self) -> bool {
        false
    }

    /// What a file of adapters (safetensors) does to these networks; `path` is what errors call it.
    ///
    /// # Errors
    /// The file is broken, or not for this model.
    fn adapter(&self, path: &str, _file: &[u8]) -> Result<Adapter, LoadError> {
        Err(LoadError::Safetensors { path: path.to_owned(), reason: "this model takes no adapters".to_owned() })
    }

    /// What a file of textual inversion (safetensors) teaches these networks: the word `<name>`.
    ///
    /// # Errors
    /// The file is broken, or not for this model.
    fn learned(&self, name: &str, _file: &[u8]) -> Result<LearnedToken, LoadError> {
        Err(LoadError::Safetensors { path: name.to_owned(), reason: "this model learns no words".to_owned() })
    }
}

impl Model {
    /// The networks, as the type that the model's family has loaded.
    ///
    /// # Errors
    /// They are of another type: a recipe has called a network that this model does not have.
    pub fn networks<T: Loaded>(&self) -> Result<&T, NetworkError> {
        let networks: &dyn Any = self.networks.as_ref();
        networks.downcast_ref().ok_or_else(|| NetworkError {
            network: "model",
            detail: format!("the model {:?} ({}) does not have the networks of this call", self.name, self.family),
        })
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("family", &self.family).finish_non_exhaustive()
    }
}
