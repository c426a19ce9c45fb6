//! The content of a model's file, read piece by piece.
//!
//! Files are not mapped into memory: if another program shortened a mapped file, the process would end with SIGBUS.

use std::{
    borrow::Cow,
    fmt, fs, io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::hex::hex;

/// The content of a file. Cheap to clone, except for owned bytes in memory.
#[derive(Clone)]
pub enum FileContent {
    /// An open file on disk. Other programs can change it at any time, so every read can fail.
    Disk(Arc<DiskFile>),
    /// Bytes in memory.
    Held(Cow<'static, [u8]>),
}

/// An open file, with its stamp at the time of opening.
#[derive(Debug)]
pub struct DiskFile {
    file: fs::File,
    path: PathBuf,
    stamp: Stamp,
}

/// Properties of a file that change if the file is written to or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Length of the file.
    pub bytes: u64,
    /// Seconds and nanoseconds of the last change of the content (mtime).
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of content, name or rights (ctime), which no program can set.
    changed: (i64, i64),
    /// Device and inode number.
    inode: (u64, u64),
}

impl Stamp {
    /// The stamp of the file at a path.
    ///
    /// # Errors
    /// The properties of the file cannot be read.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

impl FileContent {
    /// Opens a regular file.
    ///
    /// # Errors
    /// There is no such file, it cannot be read, or it is a folder, a pipe or a device.
    pub fn open(path: &Path) -> io::Result<Self> {
        // The file is also checked before it is opened, because opening a pipe would block.
        let is_regular = |metadata: &fs::Metadata| match metadata.is_file() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file")),
        };
        is_regular(&fs::metadata(path)?)?;
        let file = fs::File::open(path)?;
        let metadata = file.metadata()?;
        is_regular(&metadata)?;
        Ok(Self::Disk(Arc::new(DiskFile { stamp: Stamp::of(&metadata), path: path.to_owned(), file })))
    }

    /// Length in bytes, as it was when the file was opened.
    pub fn len(&self) -> usize {
        match self {
            Self::Disk(disk) => usize::try_from(disk.stamp.bytes).unwrap_or(usize::MAX),
            Self::Held(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stamp at the time of opening; `None` for bytes in memory, which do not change.
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Disk(disk) => Some(disk.stamp),
            Self::Held(_) => None,
        }
    }

    /// The bytes of a range: copied from a file on disk, borrowed from memory.
    ///
    /// # Errors
    /// The range is not inside the file, the file has become shorter, or the disk fails.
    pub fn read(&self, range: Range<usize>) -> io::Result<Cow<'_, [u8]>> {
        let outside = || io::Error::new(io::ErrorKind::UnexpectedEof, "ends before the bytes that were asked for");
        match self {
            // The range is checked before memory is allocated for its bytes.
            Self::Disk(_) if range.start > range.end || range.end > self.len() => Err(outside()),
            Self::Disk(disk) => {
                let mut bytes = vec![0; range.len()];
                disk.file.read_exact_at(&mut bytes, range.start as u64).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => outside(),
                    _ => error,
                })?;
                Ok(Cow::Owned(bytes))
            }
            Self::Held(bytes) => bytes.get(range).map(Cow::Borrowed).ok_or_else(outside),
        }
    }

    /// The whole content, of at most `most` bytes.
    ///
    /// # Errors
    /// Those of [`FileContent::read`]; or the file is longer, which is detected before memory is allocated.
    pub fn read_all(&self, most: usize) -> io::Result<Cow<'static, [u8]>> {
        if self.len() > most {
            let reason = format!("is {} bytes long; at most {most} bytes are read", self.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        match self {
            Self::Disk(_) => self.read(0..self.len()).map(|bytes| Cow::Owned(bytes.into_owned())),
            Self::Held(bytes) => Ok(bytes.clone()),
        }
    }

    /// The SHA-256 of the whole content in lower-case hexadecimal. Reads one MiB at a time.
    ///
    /// # Errors
    /// Those of [`FileContent::read`] and of [`FileContent::check_unchanged`].
    pub fn sha256(&self) -> io::Result<String> {
        const PART: usize = 1 << 20;
        let mut digest = Sha256::new();
        for begin in (0..self.len()).step_by(PART) {
            digest.update(self.read(begin..self.len().min(begin + PART))?);
        }
        self.check_unchanged()?;
        Ok(hex(digest.finalize()))
    }

    /// Checks that the file was not written to or shortened since it was opened. Otherwise, earlier reads may have
    /// returned bytes of two versions of the file.
    ///
    /// # Errors
    /// The file has changed.
    pub fn check_unchanged(&self) -> io::Result<()> {
        match self {
            Self::Disk(disk) => {
                // Removing or renaming an open file changes only ctime and not what is read.
                let now = Stamp { changed: disk.stamp.changed, ..Stamp::of(&disk.file.metadata()?) };
                if now == disk.stamp { Ok(()) } else { Err(changed()) }
            }
            Self::Held(_) => Ok(()),
        }
    }

    /// Opens the file at `path`, and checks that it still has `stamp`. (Reads of a file that stays open would not
    /// notice another file in its place.)
    ///
    /// # Errors
    /// Those of [`FileContent::open`]; or another file is at the path now, or the file has changed.
    pub fn open_unchanged(path: &Path, stamp: Stamp) -> io::Result<Self> {
        let file = Self::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => changed(),
            _ => error,
        })?;
        if file.stamp() == Some(stamp) { Ok(file) } else { Err(changed()) }
    }
}

/// Why the file at `path` cannot be looked at. For a link whose target does not exist, the text names the target.
pub fn unreadable(path: &Path, error: &io::Error) -> String {
    match fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => {
            format!("a link to {}, which does not exist", target.display())
        }
        Ok(target) => format!("a link to {}: {error}", target.display()),
        Err(_) => error.to_string(),
    }
}

/// The error that a file is no longer the one that was listed.
#[derive(Debug, thiserror::Error)]
#[error(
    "has changed on disk since it was listed; try again later: the server lists it again within two times \
     models.poll_interval_s seconds, or at once after SIGHUP or POST /admin/reload"
)]
struct Changed;

fn changed() -> io::Error {
    io::Error::other(Changed)
}

/// Whether an error says that a file has changed since it was listed, so that a later attempt can succeed.
pub(super) fn is_change(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Changed>())
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(disk) => write!(f, "FileContent({}, {} bytes)", disk.path.display(), self.len()),
            Self::Held(_) => write!(f, "FileContent({} bytes)", self.len()),
        }
    }
}
