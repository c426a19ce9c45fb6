//! By what a file is known again without reading it.

use std::{fs, path::Path, time::UNIX_EPOCH};

use sha2::{Digest, Sha256};

/// A file on disk: its path, size, and time of change. A file that cannot be looked at has none of these.
pub fn of_file(path: &Path) -> String {
    let seen = fs::metadata(path).ok();
    let size = seen.as_ref().map(fs::Metadata::len);
    let changed = seen.and_then(|seen| seen.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    format!("{path:?} {size:?} {changed:?}\n")
}

/// All files below a folder, links followed no further than to what they point to, by name.
pub fn of_folder(root: &Path) -> String {
    let mut entries: Vec<_> = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort_unstable();
    let is_inner = |path: &Path| path.is_dir() && !path.is_symlink();
    entries.iter().map(|path| if is_inner(path) { of_folder(path) } else { of_file(path) }).collect()
}

/// Bytes in memory.
pub fn of_bytes(name: &str, bytes: &[u8]) -> String {
    format!("{name} {:x?}\n", Sha256::digest(bytes))
}
