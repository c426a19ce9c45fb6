//! The files of LoRAs and textual inversions: what there is, and what cannot be used.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rayon::prelude::*;

use crate::{
    generation::LoraUse,
    weights::{FileContent, LoadError, Stamp, check_header, imprint, lora::Lora},
};

/// Levels of folders in which files are looked for, and the most files of one folder.
const LEVELS: usize = 5;
const MOST: usize = 10_000;

/// A file that models can be changed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its size.
    pub bytes: u64,
    content: Content,
    /// Why no model can use it.
    fault: Option<String>,
    numbers: Numbers,
}

/// What is wrong with the numbers of a LoRA, once they were looked at. It follows from the content.
#[derive(Clone, Debug, Default)]
struct Numbers(Arc<Looked>);

#[derive(Debug, Default)]
struct Looked {
    fault: OnceLock<Option<String>>,
    /// Held by the one who looks.
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
    /// Of a companion of the embedded model.
    Embedded(Cow<'static, [u8]>),
}

/// A file on disk as it was when it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// Why it is not even looked into.
    refused: Option<String>,
}

impl Seen {
    /// What stands for the file and its content.
    pub fn key(&self) -> String {
        imprint::digest(&format!("{self:?}"))
    }
}

impl File {
    pub fn embedded(content: Cow<'static, [u8]>) -> File {
        let bytes = content.len() as u64;
        File { bytes, content: Content::Embedded(content), fault: None, numbers: Numbers::default() }
    }

    /// Looks into the head of the file.
    fn of(name: &str, seen: Seen) -> File {
        let bytes = seen.stamp.map_or(0, |stamp| stamp.bytes);
        let refused = seen.refused.clone();
        let file = File { bytes, content: Content::Disk(seen), fault: None, numbers: Numbers::default() };
        let fault = refused.or_else(|| {
            let checked = file.open(name).and_then(|content| check_header(name, &content));
            checked.err().map(|error| error.to_string())
        });
        File { fault, ..file }
    }

    /// Why no model can use the file.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref().or_else(|| self.numbers.0.fault.get()?.as_deref())
    }

    /// Whether the numbers of a LoRA were looked at.
    pub fn has_known_numbers(&self) -> bool {
        self.is_embedded() || self.numbers.0.fault.get().is_some()
    }

    /// Looks at all numbers of a LoRA, once: what was found before is part of [`File::fault`]. Blocks while the file is read.
    ///
    /// # Errors
    /// One is not finite or too large, or the file cannot be read.
    pub fn check_numbers(&self, name: &str) -> Result<(), LoadError> {
        let _looking = self.numbers.0.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_known_numbers() {
            return Ok(());
        }
        let checked = Lora::check_numbers(name, &self.open(name)?);
        // What a disk answers now says nothing of the file.
        if !matches!(checked, Err(LoadError::Read { .. })) {
            self.numbers.0.fault.get_or_init(|| checked.as_ref().err().map(LoadError::to_string));
        }
        checked
    }

    /// The content as it was when the file was listed, of which nothing is read yet; `name` is what errors call it.
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

    /// All of the content.
    ///
    /// # Errors
    /// Those of [`File::open`].
    pub fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, LoadError> {
        let content = self.open(name)?;
        content.read_all(LARGEST).map_err(|source| LoadError::Read { path: name.to_owned(), source })
    }

    /// By what the file is known again.
    pub fn imprint(&self) -> String {
        match &self.content {
            Content::Disk(seen) => imprint::of_file(&seen.path),
            Content::Embedded(content) => imprint::of_bytes("", content),
        }
    }

    /// What stands for the file and its content, as long as the process lives.
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

/// The largest file that is read, in bytes: an adapter of every layer of Stable Diffusion XL at the largest rank.
const LARGEST: usize = 8 << 30;

/// The files below `dir`, by their paths without endings; of `known`, those that have not changed are not looked into
/// again. An empty path is a folder without any.
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

/// What [`list`] would find now, of which no file is opened.
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
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        let last = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if last.starts_with('.') || found.len() >= MOST {
            continue;
        }
        if path.is_dir() {
            // A folder within that cannot be read does not hide the others.
            if levels > 1 && walk(&path, &format!("{group}{last}/"), levels - 1, found).is_err() {
                tracing::warn!(path = %path.display(), "cannot be read");
            }
            continue;
        }
        let Some((stem, ending)) = last.rsplit_once('.') else { continue };
        let refused = match ending {
            "safetensors" => None,
            "pt" | "pth" | "ckpt" | "bin" => Some(PICKLE.to_owned()),
            _ => continue,
        };
        let stamp = match Stamp::at(&path) {
            Ok(stamp) => Ok(stamp),
            Err(error) => Err(error.to_string()),
        };
        let name = format!("{group}{stem}");
        let (name, refused) = match is_name(&name) {
            true => (name, refused),
            false => (name.escape_default().take(LoraUse::MAX_NAME_CHARS).collect(), Some(NAMES.to_owned())),
        };
        let seen = Seen { path, refused: refused.or(stamp.as_ref().err().cloned()), stamp: stamp.ok() };
        // A file that can be used goes before one of its name that cannot.
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
