//! Reads which files and folders are in a folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The paths of the files and folders in a folder.
pub(in crate::catalogue) fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}
