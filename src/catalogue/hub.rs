//! The layout of a Hugging Face cache: `models--ORG--NAME` with `refs/main`, `snapshots/HASH/…` and `blobs/…`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{entries::entries, fault::Fault};
use crate::transient::is_transient;

const PREFIX: &str = "models--";

/// The name `ORG/NAME` of a repository's folder; `None` for other folders.
pub(super) fn repository(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    (path.join("snapshots").is_dir() || path.join("blobs").is_dir() || path.join("refs").is_dir())
        .then(|| name.replacen("--", "/", 1))
}

/// Whether the folder belongs to a repository of data sets or spaces.
pub(super) fn is_other(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ["datasets--", "spaces--"].iter().any(|prefix| name.starts_with(prefix))
}

/// The name of the repository if the folder is a snapshot of one; otherwise `None`.
pub(super) fn name_of_snapshot(path: &Path) -> Option<String> {
    let snapshots = path.parent().filter(|parent| parent.ends_with("snapshots"))?;
    repository(snapshots.parent()?)
}

/// The folder of the snapshot that `refs/main` names, or of the only snapshot.
///
/// # Errors
/// No snapshot can be chosen; the error says what is missing and how to get it.
pub(super) fn snapshot(repository: &Path) -> Result<PathBuf, Fault> {
    let snapshots = repository.join("snapshots");
    let unread = |error: &io::Error| Fault { reason: error.to_string(), is_unread: true };
    let main = match fs::read_to_string(repository.join("refs/main")) {
        Err(error) if is_transient(&error) => return Err(unread(&error)),
        main => main.unwrap_or_default(),
    };
    let main = main.trim();
    let is_plain = !main.is_empty() && main.chars().all(|c| c.is_ascii_alphanumeric());
    if is_plain && snapshots.join(main).is_dir() {
        return Ok(snapshots.join(main));
    }
    let mut folders = match entries(&snapshots) {
        Err(error) if is_transient(&error) => return Err(unread(&error)),
        folders => folders.unwrap_or_default(),
    };
    folders.retain(|path| path.is_dir());
    match folders.len() {
        1 => Ok(folders.remove(0)),
        0 => Err("the cache has no snapshot of it; `hf download` fetches one".to_owned().into()),
        many => Err(format!("refs/main names none of its {many} snapshots; `hf download` sets it").into()),
    }
}
