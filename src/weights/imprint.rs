//! By what a file is known again without reading it.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::MetadataExt,
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

/// All files below a folder by name, links followed, each by [`of_file`].
pub fn of_folder(root: &Path) -> String {
    of_files(root, of_file)
}

/// As [`of_file`], and another text as well where a file of the same size and time was put in the place of this one, as by tar,
/// `cp -p` or `rsync -t`: with the time at which the system saw the last change of it. That is another one for each copy of
/// the file, and means something on one machine alone. (The file's number would tell no more, and some network file systems
/// give a file another number each time that they look at it.)
pub fn stamp_of_file(path: &Path) -> String {
    let seen = fs::metadata(path).map(|seen| (seen.ctime(), seen.ctime_nsec())).ok();
    format!("{seen:?} {}", of_file(path))
}

/// As [`of_folder`], each by [`stamp_of_file`].
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
            // An empty folder is seen as well.
            let _ = writeln!(text, "{path:?}");
            walk(&path, of, levels - 1, left, text);
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
