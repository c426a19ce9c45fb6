//! Finds the files of LoRAs and textual inversions, and says which files cannot be used.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use rayon::prelude::*;

use crate::{
    catalogue::{entries::entries, fault::Fault},
    generation::LoraUse,
    transient::is_transient,
    weights::{FileContent, LoadError, Stamp, check_header, fingerprint, lora::Lora, unreadable},
};

/// How many levels of folders are searched, and the maximum number of files.
const LEVELS: usize = 5;
const MOST: usize = 10_000;

/// A file of a LoRA or a textual inversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Size in bytes.
    pub bytes: u64,
    content: Content,
    /// Why no model can use the file, judged by its name and header.
    fault: Option<Fault>,
    numbers: Numbers,
}

/// The result of checking the numbers of a LoRA, and the digest of the file. Both depend only on the content of the
/// file, so comparisons of files ignore them.
#[derive(Clone, Debug, Default)]
struct Numbers(Arc<Looked>);

#[derive(Debug, Default)]
/// The state of the check, shared by clones of the file.
struct Looked {
    fault: OnceLock<Option<String>>,
    /// The SHA-256 of the file, computed at the first request for it.
    sha256: OnceLock<String>,
    /// Locked during the check, so that concurrent requests do not check the same numbers twice.
    looking: Mutex<()>,
}

impl PartialEq for Numbers {
    fn eq(&self, _: &Numbers) -> bool {
        true
    }
}

impl Eq for Numbers {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Disk(Seen),
    /// An add-on of the embedded model.
    Embedded(Cow<'static, [u8]>),
}

/// A file on disk in the state in which it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// Why the file cannot be used, if this is known before the file is opened.
    refused: Option<Fault>,
}

impl Seen {
    /// A text that identifies the file and the state of its content.
    pub fn key(&self) -> String {
        fingerprint::digest(&format!("{self:?}"))
    }
}

impl File {
    /// A file that is compiled into the program.
    pub fn embedded(content: Cow<'static, [u8]>) -> File {
        let bytes = content.len() as u64;
        File { bytes, content: Content::Embedded(content), fault: None, numbers: Numbers::default() }
    }

    /// Reads the header of the file.
    fn of(name: &str, seen: Seen) -> File {
        let bytes = seen.stamp.map_or(0, |stamp| stamp.bytes);
        let refused = seen.refused.clone();
        let file = File { bytes, content: Content::Disk(seen), fault: None, numbers: Numbers::default() };
        let fault = refused.or_else(|| {
            let checked = file.open(name).and_then(|content| check_header(name, &content));
            checked.err().map(Fault::from)
        });
        File { fault, ..file }
    }

    /// Why no model can use the file.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_ref().map(|fault| fault.reason.as_str()).or_else(|| self.numbers.0.fault.get()?.as_deref())
    }

    /// Whether the file could not be read for a transient reason, such as a lack of file descriptors.
    pub(super) fn is_unread(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.is_unread)
    }

    /// Whether the numbers of a LoRA were checked and cannot be used.
    pub(super) fn has_bad_numbers(&self) -> bool {
        matches!(self.numbers.0.fault.get(), Some(Some(_)))
    }

    /// Whether the numbers of a LoRA were checked already, or need no check because the file is embedded.
    pub fn has_known_numbers(&self) -> bool {
        self.is_embedded() || self.numbers.0.fault.get().is_some()
    }

    /// Checks all numbers of a LoRA; the result becomes part of [`File::fault`]. If the numbers were checked before,
    /// returns `Ok`, whatever the result was. Blocks while the file is read.
    ///
    /// # Errors
    /// A number is not finite or too large, or the file cannot be read.
    pub fn check_numbers(&self, name: &str) -> Result<(), LoadError> {
        let _looking = self.numbers.0.looking.lock();
        if self.has_known_numbers() {
            return Ok(());
        }
        let checked = Lora::check_numbers(name, &self.open(name)?);
        // A later read may succeed, so a failure to read the file is not remembered.
        if !matches!(checked, Err(LoadError::Read { .. })) {
            self.numbers.0.fault.get_or_init(|| checked.as_ref().err().map(LoadError::to_string));
        }
        checked
    }

    /// Opens the content as it was when the file was listed, without reading it. Errors name the file `name`.
    ///
    /// # Errors
    /// The file is gone, cannot be read, or has changed since.
    pub fn open(&self, name: &str) -> Result<FileContent, LoadError> {
        let unreadable = |source| LoadError::Read { path: name.to_owned(), source };
        match &self.content {
            Content::Disk(Seen { path, stamp: Some(stamp), .. }) => {
                FileContent::open_unchanged(path, *stamp).map_err(unreadable)
            }
            Content::Disk(Seen { path, stamp: None, .. }) => FileContent::open(path).map_err(unreadable),
            Content::Embedded(content) => Ok(FileContent::Held(content.clone())),
        }
    }

    /// Reads the whole content.
    ///
    /// # Errors
    /// Those of [`File::open`], and a file that is too large or cannot be read.
    pub fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, LoadError> {
        let content = self.open(name)?;
        content.read_all(LARGEST).map_err(|source| LoadError::Read { path: name.to_owned(), source })
    }

    /// The fingerprint of the file.
    pub fn fingerprint(&self) -> String {
        match &self.content {
            Content::Disk(seen) => fingerprint::of_file(&seen.path),
            Content::Embedded(content) => fingerprint::of_bytes("", content),
        }
    }

    /// The SHA-256 of the file in lower-case hexadecimal, in the state in which it was listed. The first call reads the
    /// file; call this function on a blocking thread. `None` if the file cannot be read or has changed.
    pub fn sha256(&self, name: &str) -> Option<&str> {
        if let Some(known) = self.numbers.0.sha256.get() {
            return Some(known);
        }
        let digest = self.open(name).ok()?.sha256().ok()?;
        Some(self.numbers.0.sha256.get_or_init(|| digest))
    }

    /// A text that identifies the file and the state of its content. Valid only in this process.
    pub fn key(&self) -> String {
        match &self.content {
            Content::Disk(seen) => seen.key(),
            Content::Embedded(_) => String::new(),
        }
    }

    pub fn is_embedded(&self) -> bool {
        matches!(self.content, Content::Embedded(_))
    }
}

/// Maximum bytes of a file: enough for a LoRA of the largest rank that changes every layer of Stable Diffusion XL.
const LARGEST: usize = 8 << 30;

/// The files below `dir`, by their paths without extensions. Files of `known` that have not changed are not opened
/// again. An empty path means no files.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn list(dir: &Path, known: &BTreeMap<String, File>) -> io::Result<BTreeMap<String, File>> {
    let file = |(name, seen): (String, Seen)| {
        let same = known.get(&name).filter(|file| matches!(&file.content, Content::Disk(known) if *known == seen));
        let file = same.cloned().unwrap_or_else(|| File::of(&name, seen));
        (name, file)
    };
    Ok(look(dir)?.into_par_iter().map(file).collect())
}

/// What [`list`] would find now, without opening files.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn look(dir: &Path) -> io::Result<BTreeMap<String, Seen>> {
    let mut found = BTreeMap::new();
    if !dir.as_os_str().is_empty() {
        walk(dir, "", LEVELS, &mut found)?;
    }
    Ok(found)
}

fn walk(dir: &Path, group: &str, levels: usize, found: &mut BTreeMap<String, Seen>) -> io::Result<()> {
    let mut paths: Vec<PathBuf> = entries(dir)?;
    paths.sort_unstable();
    for path in paths {
        let last = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if last.starts_with('.') {
            continue;
        }
        if found.len() >= MOST {
            tracing::warn!(path = %dir.display(), "more than {MOST} files: the others are not listed");
            break;
        }
        if path.is_dir() {
            // A subfolder that cannot be read does not hide the other files.
            let walked = if levels > 1 { walk(&path, &format!("{group}{last}/"), levels - 1, found) } else { Ok(()) };
            match walked {
                Err(error) if is_transient(&error) => return Err(error),
                Err(_) => tracing::warn!(path = %path.display(), "cannot be read"),
                Ok(()) => {}
            }
            continue;
        }
        let Some((stem, ending)) = last.rsplit_once('.') else { continue };
        let refused = match ending.to_ascii_lowercase().as_str() {
            "safetensors" => None,
            "pt" | "pth" | "ckpt" | "bin" => Some(PICKLE.to_owned().into()),
            _ => continue,
        };
        let stamp = Stamp::at(&path)
            .map_err(|error| Fault { reason: unreadable(&path, &error), is_unread: is_transient(&error) });
        let name = format!("{group}{stem}");
        let (name, refused) = match is_name(&name) {
            true => (name, refused),
            false => (name.escape_default().take(LoraUse::MAX_NAME_CHARS).collect(), Some(NAMES.to_owned().into())),
        };
        let seen = Seen { path, refused: refused.or(stamp.as_ref().err().cloned()), stamp: stamp.ok() };
        // A usable file takes precedence over an unusable one of the same name.
        match found.get(&name) {
            Some(other) if other.refused.is_none() || seen.refused.is_some() => {}
            _ => drop(found.insert(name, seen)),
        }
    }
    Ok(())
}

const NAMES: &str = "a name is 1 to 128 characters without '<', '>', ':' and control characters; rename the file";

const PICKLE: &str = "a pickle, which can run code when it is read; only safetensors files are read: convert it in Python with \
                      safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE)";

fn is_name(name: &str) -> bool {
    let fits = |c: char| !c.is_control() && !matches!(c, '<' | '>' | ':' | '\u{fffd}');
    (1..=LoraUse::MAX_NAME_CHARS).contains(&name.chars().count()) && name.chars().all(fits)
}
