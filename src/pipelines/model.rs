//! A loaded model.

use std::{any::Any, sync::Arc};

use super::{Frame, NetworkError};
use crate::{
    device::Device,
    imaging::Pixels,
    models::{adapters::Adapter, text_encoders::LearnedToken},
    weights::LoadError,
};

/// A loaded model, shared by all runs that use it.
pub struct Model {
    pub name: String,
    /// Identifies the name and the files of the model. Results computed with models of different keys are never mixed.
    pub key: Arc<str>,
    /// The family whose recipe draws with the model.
    pub family: &'static str,
    /// The device that holds the networks.
    pub device: Device,
    pub networks: Box<dyn Loaded>,
}

/// The networks of a model, for code that does not know the family. Each family implements this trait for a type of its
/// own; its recipes and calls get that type from [`Model::networks`].
pub trait Loaded: Any + Send + Sync {
    /// A rough preview, computed from the sampler's current estimate of x0 with the shape (C, h, w); `None` if the
    /// model has no previews. It runs on the engine's thread, so it must be cheap.
    fn rgb_preview(&self, estimate: &[f32], shape: [usize; 3]) -> Option<Frame>;

    /// The picture that a film begins with as the input of the model's encoder of pictures; `None` if the model has no
    /// such encoder.
    ///
    /// # Errors
    /// The encoder cannot see the picture.
    fn picture_for_encoder(&self, _picture: &Pixels<3>) -> Result<Option<Vec<f32>>, NetworkError> {
        Ok(None)
    }

    /// Whether the recipe can compute better previews with a network. The recipe then passes them to
    /// [`Compute::show`](super::Compute::show).
    fn has_preview_network(&self) -> bool {
        false
    }

    /// Reads a file of adapters (safetensors) for these networks. Errors name the file `path`.
    ///
    /// # Errors
    /// The file is damaged or does not fit this model.
    fn adapter(&self, path: &str, _file: &[u8]) -> Result<Adapter, LoadError> {
        Err(LoadError::Safetensors { path: path.to_owned(), reason: "this model takes no adapters".to_owned() })
    }

    /// Reads the file of a textual inversion (safetensors), which defines the word `<name>` for these networks.
    ///
    /// # Errors
    /// The file is damaged or does not fit this model.
    fn learned(&self, name: &str, _file: &[u8]) -> Result<LearnedToken, LoadError> {
        Err(LoadError::Safetensors { path: name.to_owned(), reason: "this model learns no words".to_owned() })
    }
}

impl Model {
    /// The networks as the type that the model's family has loaded.
    ///
    /// # Errors
    /// The networks have another type: the recipe belongs to another family.
    pub fn networks<T: Loaded>(&self) -> Result<&T, NetworkError> {
        let networks: &dyn Any = self.networks.as_ref();
        networks.downcast_ref().ok_or_else(|| {
            let Model { name, family, .. } = self;
            NetworkError::new("model", format!("the model {name:?} ({family}) does not have the networks of this call"))
        })
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("family", &self.family).finish_non_exhaustive()
    }
}
