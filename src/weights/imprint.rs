//! By what a file is known again without reading it.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use sha2::{Digest, Sha256};

/// Levels of folders below one, and files and folders in all of them, that are looked at.
const DEEPEST: usize = 6;
const MOST: usize = 20_000;

/// A file on disk: its path, size, and time of change. A file that cannot be looked at has none of these.
pub fn of_file(path: &Path) -> String {
    let seen = fs::metadata(path).ok();
    let size = seen.as_ref().map(fs::Metadata::len);
    let changed = seen.and_then(|seen| seen.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    format!("{path:?} {size:?} {changed:?}\n")
}

/// All files below a folder by name, links followed.
pub fn of_folder(root: &Path) -> String {
    let (mut text, mut left) = (String::new(), MOST);
    walk(root, DEEPEST, &mut left, &mut text);
    text
}

fn walk(folder: &Path, levels: usize, left: &mut usize, text: &mut String) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        if *left == 0 {
            return;
        }
        *left -= 1;
        if !path.is_dir() {
            text.push_str(&of_file(&path));
        } else if levels > 0 {
            // An empty folder is seen as well.
            let _ = writeln!(text, "{path:?}");
            walk(&path, levels - 1, left, text);
        }
    }
}

/// Bytes in memory.
pub fn of_bytes(name: &str, bytes: &[u8]) -> String {
    format!("{name} {:x?}\n", Sha256::digest(bytes))
}

/// A short word for a long imprint, different for different ones.
pub fn digest(imprint: &str) -> String {
    let digest = Sha256::digest(imprint);
    digest.iter().take(12).fold(String::new(), |word, byte| word + &format!("{byte:02x}"))
}
