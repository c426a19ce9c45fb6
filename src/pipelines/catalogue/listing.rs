//! The folders of models on the disk.

use std::path::Path;

use super::CatalogueError;
use crate::weights::ModelFolder;

/// The folders of models inside `dir`. A name that is no good in a URL or a request is passed over with a warning.
pub(super) fn folders(dir: &Path) -> Result<Vec<(String, ModelFolder)>, CatalogueError> {
    let unreadable = |source| CatalogueError::Folder { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !path.join("model_index.json").is_file() {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
        let Some(name) = name else {
            tracing::warn!(path = %path.display(), "passed over: a model's name is 1 to 64 letters, digits, '.', '_' and '-'");
            continue;
        };
        match ModelFolder::open(&path) {
            Ok(folder) => found.push((name.to_owned(), folder)),
            Err(error) => tracing::warn!(path = %path.display(), %error, "passed over"),
        }
    }
    Ok(found)
}

pub(in crate::pipelines) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}
