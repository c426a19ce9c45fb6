//! The model inside the program.

use rust_embed::RustEmbed;

use crate::weights::ModelFolder;

/// The name of the embedded model in the API.
pub(super) const NAME: &str = "emoji";

#[derive(RustEmbed)]
#[folder = "models/emoji"]
struct Files;

/// The folder `models/emoji` of the repository, compiled in, so that the server draws from any folder and offline.
pub(super) fn folder() -> ModelFolder {
    ModelFolder::embedded(NAME, Files::iter(), |path| Files::get(path).map(|file| file.data))
}
