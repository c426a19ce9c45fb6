use std::{
    borrow::Cow,
    fmt, fs,
    ops::{Deref, Range},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use memmap2::{Mmap, UncheckedAdvice};
use serde_json::{Map, Value};

use super::{LoadError, imprint, json, single_file::SingleFile};

/// A folder in diffusers' layout: `model_index.json`, `unet/config.json`, `unet/diffusion_pytorch_model.safetensors` …
///
/// Paths are relative and use `/`. A path with `..`, an absolute one, and a link that leads out of the folder are refused.
#[derive(Clone)]
pub struct ModelFolder(Place);

#[derive(Clone)]
enum Place {
    Disk { root: PathBuf },
    Embedded { name: Cow<'static, str>, files: Vec<Cow<'static, str>>, read: fn(&str) -> Option<Cow<'static, [u8]>> },
    SingleFile(Arc<SingleFile>),
}

impl ModelFolder {
    /// The folder at `root`, which must exist.
    pub fn open(root: &Path) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read { path: root.display().to_string(), source };
        let root = root.canonicalize().map_err(read)?;
        if !root.is_dir() {
            return Err(read(std::io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self(Place::Disk { root }))
    }

    /// A folder inside the program: the relative paths of its files, and the function that reads one.
    pub fn embedded(
        name: impl Into<Cow<'static, str>>,
        files: impl IntoIterator<Item = Cow<'static, str>>,
        read: fn(&str) -> Option<Cow<'static, [u8]>>,
    ) -> Self {
        Self(Place::Embedded { name: name.into(), files: files.into_iter().collect(), read })
    }

    /// The folder that a checkpoint in one safetensors file stands for: Stable Diffusion 1, 2 and XL, its refiner, and
    /// ControlNets, in their first authors' names. Only the file's header is read; `NAME.json` beside the file may correct
    /// the configurations.
    ///
    /// # Errors
    /// The file is broken, is none of these, or has tensors that are of no part of them.
    pub fn single(path: &Path) -> Result<Self, LoadError> {
        Ok(Self(Place::SingleFile(Arc::new(SingleFile::open(path)?))))
    }

    /// As [`ModelFolder::single`], of a file in memory that errors call `name`.
    ///
    /// # Errors
    /// The same.
    pub fn single_held(name: &str, file: Vec<u8>) -> Result<Self, LoadError> {
        let bytes = FileBytes::Held(Cow::Owned(file));
        Ok(Self(Place::SingleFile(Arc::new(SingleFile::new(name.to_owned(), bytes)?))))
    }

    /// The file, where the folder is made of one.
    pub(super) fn single_file(&self) -> Option<&SingleFile> {
        match &self.0 {
            Place::SingleFile(single) => Some(single),
            _ => None,
        }
    }

    /// By what all its files are known again: names, sizes and times of change on disk, contents in memory.
    pub fn imprint(&self) -> String {
        match &self.0 {
            Place::Disk { root } => imprint::of_folder(root),
            Place::Embedded { files, read, .. } => {
                files.iter().map(|file| imprint::of_bytes(file, &read(file).unwrap_or_default())).collect()
            }
            Place::SingleFile(single) => {
                let texts = single.files().map(|file| {
                    let text = single.text(&file).unwrap_or_default();
                    imprint::of_bytes(&file, text.as_bytes())
                });
                imprint::of_file(Path::new(single.path())) + &texts.collect::<String>()
            }
        }
    }

    /// Whether the folder has the file.
    pub fn has(&self, path: &str) -> bool {
        match &self.0 {
            Place::Disk { root } => is_plain(path) && root.join(path).is_file(),
            Place::Embedded { files, .. } => files.iter().any(|f| f == path),
            Place::SingleFile(single) => single.files().any(|f| f == path),
        }
    }

    /// The sorted names of the files directly inside `folder`; empty where there is no such folder.
    pub fn names(&self, folder: &str) -> Result<Vec<String>, LoadError> {
        let mut names: Vec<String> = match &self.0 {
            Place::Disk { root } => match fs::read_dir(root.join(plain(folder)?)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                entries => entries
                    .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
                    .map_err(|source| LoadError::Read { path: folder.into(), source })?
                    .iter()
                    .filter_map(|e| e.file_name().into_string().ok())
                    .collect(),
            },
            Place::Embedded { files, .. } => files
                .iter()
                .filter_map(|f| f.strip_prefix(folder)?.strip_prefix('/'))
                .filter(|f| !f.contains('/'))
                .map(str::to_owned)
                .collect(),
            Place::SingleFile(single) => {
                let inside = |f: String| Some(f.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
                single.files().filter_map(inside).filter(|f| !f.contains('/')).collect()
            }
        };
        names.sort();
        Ok(names)
    }

    /// The bytes of a file; mapped into memory where it lies on disk.
    pub fn bytes(&self, path: &str) -> Result<FileBytes, LoadError> {
        let path = plain(path)?;
        match &self.0 {
            Place::Disk { root } => map(root, path),
            Place::Embedded { read, .. } => {
                read(path).map(FileBytes::Held).ok_or_else(|| LoadError::Absent { path: path.into() })
            }
            Place::SingleFile(single) => {
                let text = single.text(path).ok_or_else(|| LoadError::Absent { path: path.into() })?;
                Ok(FileBytes::Held(Cow::Owned(text.into_bytes())))
            }
        }
    }

    /// The text of a file, which must be UTF-8.
    pub fn text(&self, path: &str) -> Result<String, LoadError> {
        String::from_utf8(self.bytes(path)?.to_vec()).map_err(|e| LoadError::Read {
            path: path.into(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
        })
    }

    /// The JSON object in a file. `Infinity`, `-Infinity` and `NaN`, which Python writes, are read as strings.
    pub fn json(&self, path: &str) -> Result<Map<String, Value>, LoadError> {
        json::object(&self.text(path)?).map_err(|source| LoadError::Json { path: path.into(), source })
    }
}

impl fmt::Debug for ModelFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Disk { root } => write!(f, "ModelFolder({})", root.display()),
            Place::Embedded { name, .. } => write!(f, "ModelFolder(embedded {name})"),
            Place::SingleFile(single) => write!(f, "ModelFolder(file {})", single.path()),
        }
    }
}

/// The content of a file, dereferencing to its bytes; cheap to clone where it is mapped.
#[derive(Clone)]
pub enum FileBytes {
    Mapped(Arc<Mmap>),
    Held(Cow<'static, [u8]>),
}

impl FileBytes {
    /// A file, mapped into memory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn map(path: &Path) -> std::io::Result<FileBytes> {
        map_file(path)
    }

    /// Says that these bytes will not be read again soon: the memory that a map of them has taken is given back. They stay
    /// readable.
    pub(super) fn let_go(&self, range: Range<usize>) {
        if let Self::Mapped(map) = self
            && !range.is_empty()
            && range.end <= map.len()
        {
            #[expect(
                unsafe_code,
                reason = "the advice loses what was written to a map, which a map for writing may mind"
            )]
            // SAFETY: a private map that nobody can write to has no pages but the file's own, which are read from there
            // again if somebody looks, so that no byte that anybody sees is another after the call.
            let given_back = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            // Advice that the system does not take costs memory and nothing else.
            let _ = given_back;
        }
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({} bytes)", self.len())
    }
}

fn map(root: &Path, path: &str) -> Result<FileBytes, LoadError> {
    let read = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => LoadError::Absent { path: path.into() },
        _ => LoadError::Read { path: path.into(), source },
    };
    let real = root.join(path).canonicalize().map_err(read)?;
    if !real.starts_with(root) {
        return Err(LoadError::Escapes { path: path.into() });
    }
    map_file(&real).map_err(read)
}

/// Maps a file wherever it lies.
pub(super) fn map_file(path: &Path) -> std::io::Result<FileBytes> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(FileBytes::Held(Cow::Borrowed(&[]))); // An empty file cannot be mapped.
    }
    // SAFETY: the map is private and read-only, and lives as long as this value. The bytes are only ever copied out as plain
    // integers after every offset was checked against the length of the map. What is left is another process that writes
    // to or truncates the file while it is being loaded; model folders are the operator's and are replaced, not edited.
    #[expect(unsafe_code, reason = "memory maps cannot be made without it")]
    let map = unsafe { Mmap::map(&file) }?;
    Ok(FileBytes::Mapped(Arc::new(map)))
}

fn plain(path: &str) -> Result<&str, LoadError> {
    if is_plain(path) { Ok(path) } else { Err(LoadError::Escapes { path: path.into() }) }
}

fn is_plain(path: &str) -> bool {
    !path.contains('\\') && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}
