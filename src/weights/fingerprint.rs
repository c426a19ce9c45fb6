//! Fingerprints: texts by which files and folders are recognized without reading them.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use sha2::{Digest, Sha256};

use crate::hex::hex;

/// How many levels of subfolders are visited.
const DEEPEST: usize = 6;
/// How many files and folders are visited in total.
const MOST: usize = 20_000;

/// The path, size and modification time of a file on disk. If these cannot be read, size and time are `None`.
pub fn of_file(path: &Path) -> String {
    let seen = fs::metadata(path).ok();
    let size = seen.as_ref().map(fs::Metadata::len);
    let changed = seen.and_then(|seen| seen.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    format!("{path:?} {size:?} {changed:?}\n")
}

/// The results of [`of_file`] for the files below a folder, and the paths of its subfolders, sorted by path. Links are
/// followed. At most `DEEPEST` levels of subfolders, and at most `MOST` files and folders, are visited.
pub fn of_folder(root: &Path) -> String {
    of_files(root, of_file)
}

/// As [`of_file`], plus the time of the last change as the system saw it (ctime). The text also changes if tar, `cp -p`
/// or `rsync -t` replaces the file by another file that has the same size and modification time. Two copies of a file
/// have different texts, so these texts can only be compared on one machine. (The inode number would add nothing, and
/// some network file systems report a different number each time.)
pub fn stamp_of_file(path: &Path) -> String {
    let seen = fs::metadata(path).map(|seen| (seen.ctime(), seen.ctime_nsec())).ok();
    format!("{seen:?} {}", of_file(path))
}

/// As [`of_folder`], with [`stamp_of_file`] for each file.
pub fn stamp_of_folder(root: &Path) -> String {
    of_files(root, stamp_of_file)
}

fn of_files(root: &Path, of: fn(&Path) -> String) -> String {
    let (mut text, mut left) = (String::new(), MOST);
    walk(root, of, DEEPEST, &mut left, &mut text);
    text
}

fn walk(folder: &Path, of: fn(&Path) -> String, levels: usize, left: &mut usize, text: &mut String) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        if *left == 0 {
            return;
        }
        *left -= 1;
        if !path.is_dir() {
            text.push_str(&of(&path));
        } else if levels > 0 {
            // Folders are listed as well, so that empty ones count.
            let _ = writeln!(text, "{path:?}");
            walk(&path, of, levels - 1, left, text);
        }
    }
}

/// The name and the SHA-256 digest of bytes in memory.
pub fn of_bytes(name: &str, bytes: &[u8]) -> String {
    format!("{name} {:x?}\n", Sha256::digest(bytes))
}

/// A short digest of a fingerprint: 24 hexadecimal digits.
pub fn digest(fingerprint: &str) -> String {
    let digest = Sha256::digest(fingerprint);
    hex(&digest[..12])
}
