//! The folders of models on the disk, and the single files that stand for folders.

use std::path::{Path, PathBuf};

use super::CatalogueError;
use crate::weights::ModelFolder;

/// The folders and single-file checkpoints of models inside `dir`. A name that is no good in a URL or a request is passed
/// over with a warning, and so is a file that is no model.
pub(super) fn folders(dir: &Path) -> Result<Vec<(String, ModelFolder)>, CatalogueError> {
    let unreadable = |source| CatalogueError::Folder { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let folder = without_ending(&path).unwrap_or_else(|| path.clone());
        let is_file = folder != path;
        // A folder goes before the file of its name.
        if is_file == folder.join("model_index.json").is_file() {
            continue;
        }
        let name = folder.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
        let Some(name) = name else {
            tracing::warn!(path = %path.display(), "passed over: a model's name is 1 to 64 letters, digits, '.', '_' and '-'");
            continue;
        };
        match if is_file { ModelFolder::single(&path) } else { ModelFolder::open(&path) } {
            Ok(folder) if folder.has("model_index.json") => found.push((name.to_owned(), folder)),
            Ok(_) => tracing::warn!(path = %path.display(), "passed over: a ControlNet, which is no model by itself"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "passed over"),
        }
    }
    Ok(found)
}

/// Of a single file, `NAME.safetensors`, the path without the ending.
pub(in crate::pipelines) fn without_ending(path: &Path) -> Option<PathBuf> {
    let is_single = path.extension().is_some_and(|ending| ending == "safetensors") && path.is_file();
    is_single.then(|| path.with_extension(""))
}

pub(in crate::pipelines) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}
