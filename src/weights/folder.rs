//! Model folders in diffusers' layout: on disk, inside the program, or made of a single file.

mod digest;

use std::{
    borrow::Cow,
    fmt, fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    Checkpoint, FileContent, LoadError, fingerprint, header::is_pointer, json, single_file::SingleFile,
    transformer_file::TransformerFile,
};

/// The longest file that is read whole, such as a configuration or a vocabulary, in bytes: ten times the length of the
/// largest file known.
pub const LARGEST_TEXT: usize = 64 << 20;

/// A folder in diffusers' layout: `model_index.json`, `unet/config.json`, `unet/diffusion_pytorch_model.safetensors` …
///
/// Paths are relative and use `/`. Absolute paths and paths with `..` are refused. Links are followed within the
/// folder, within the folders that were given to [`ModelFolder::open_within`], and into Hugging Face caches.
#[derive(Clone)]
pub struct ModelFolder(Location);

#[derive(Clone)]
enum Location {
    Disk { root: PathBuf, within: Vec<PathBuf> },
    Embedded { name: Cow<'static, str>, files: Vec<Cow<'static, str>>, read: fn(&str) -> Option<Cow<'static, [u8]>> },
    SingleFile(Arc<SingleFile>),
    Transformer(Arc<TransformerFile>),
}

impl ModelFolder {
    /// Opens the folder at `root`, which must exist.
    ///
    /// # Errors
    /// Those of [`ModelFolder::open_within`].
    pub fn open(root: &Path) -> Result<Self, LoadError> {
        Self::open_within(root, &[])
    }

    /// Opens the folder at `root`. Its links may lead to anywhere within `others`.
    ///
    /// # Errors
    /// The folder does not exist or cannot be read.
    pub fn open_within(root: &Path, others: &[&Path]) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read { path: root.display().to_string(), source };
        let root = root.canonicalize().map_err(read)?;
        if !root.is_dir() {
            return Err(read(std::io::ErrorKind::NotADirectory.into()));
        }
        let within = others.iter().filter_map(|other| other.canonicalize().ok()).collect();
        Ok(Self(Location::Disk { root, within }))
    }

    /// A folder inside the program: the relative paths of its files, and the function that reads a file.
    pub fn embedded(
        name: impl Into<Cow<'static, str>>,
        files: impl IntoIterator<Item = Cow<'static, str>>,
        read: fn(&str) -> Option<Cow<'static, [u8]>>,
    ) -> Self {
        Self(Location::Embedded { name: name.into(), files: files.into_iter().collect(), read })
    }

    /// Presents a single safetensors or GGUF file as a folder. The file is a ControlNet, with the tensor names of the
    /// original code or of diffusers, or a checkpoint of one of the `known` kinds, with the tensor names of the
    /// original code. Only the file's header is read; `NAME.json` next to the file can correct the configurations. A
    /// file with only a transformer takes its other parts from a folder that `NAME.json` names.
    ///
    /// # Errors
    /// The file is broken, is of none of these kinds, or has tensors that fit no part of its kind.
    pub fn single(path: &Path, known: &[&'static Checkpoint]) -> Result<Self, LoadError> {
        if let Some(transformer) = TransformerFile::open(path)? {
            return Ok(Self(Location::Transformer(Arc::new(transformer))));
        }
        Ok(Self(Location::SingleFile(Arc::new(SingleFile::open(path, known)?))))
    }

    /// As [`ModelFolder::single`], for a file in memory. `name` is its name in errors.
    ///
    /// # Errors
    /// Those of [`ModelFolder::single`], except the error that the file cannot be read.
    pub fn single_held(name: &str, file: Vec<u8>, known: &[&'static Checkpoint]) -> Result<Self, LoadError> {
        let bytes = FileContent::Held(Cow::Owned(file));
        Ok(Self(Location::SingleFile(Arc::new(SingleFile::new(name.to_owned(), bytes, known)?))))
    }

    /// Notes for users on how a single file was read; empty for other folders.
    pub fn notes(&self) -> Vec<String> {
        match &self.0 {
            Location::SingleFile(single) => single.notes(),
            Location::Transformer(file) => file.notes(),
            _ => Vec::new(),
        }
    }

    /// The text of an error for users. Users do not see the configurations that are made for a single file, so the text
    /// names `NAME.json`, the file that corrects them, if it exists.
    pub fn told(&self, error: &impl fmt::Display) -> String {
        let error = error.to_string();
        match &self.0 {
            Location::SingleFile(single) => single.told(&error),
            Location::Transformer(file) => file.told(&error),
            _ => error,
        }
    }

    /// The single file that the folder stands for, if there is one.
    pub(super) fn single_file(&self) -> Option<&SingleFile> {
        match &self.0 {
            Location::SingleFile(single) => Some(single),
            _ => None,
        }
    }

    /// A text that changes with the folder's files. It consists of names, sizes and modification times of files on
    /// disk, and of digests of files in memory.
    pub fn fingerprint(&self) -> String {
        match &self.0 {
            Location::Disk { root, .. } => fingerprint::of_folder(root),
            Location::Embedded { files, read, .. } => {
                files.iter().map(|file| fingerprint::of_bytes(file, &read(file).unwrap_or_default())).collect()
            }
            Location::SingleFile(single) => {
                let texts = single.files().map(|file| {
                    let text = single.text(&file).unwrap_or_default();
                    fingerprint::of_bytes(&file, text.as_bytes())
                });
                fingerprint::of_file(Path::new(single.path())) + &texts.collect::<String>()
            }
            Location::Transformer(file) => file.fingerprint(),
        }
    }

    /// Whether the folder has the file.
    pub fn has(&self, path: &str) -> bool {
        match &self.0 {
            Location::Disk { root, .. } => is_plain(path) && root.join(path).is_file(),
            Location::Embedded { files, .. } => files.iter().any(|f| f == path),
            Location::SingleFile(single) => single.files().any(|f| f == path),
            Location::Transformer(file) => is_plain(path) && file.has(path),
        }
    }

    /// The sorted names of the entries directly inside `folder`; empty if there is no such folder.
    ///
    /// # Errors
    /// The path leaves the model folder, or the folder cannot be read.
    pub fn names(&self, folder: &str) -> Result<Vec<String>, LoadError> {
        let mut names: Vec<String> = match &self.0 {
            Location::Disk { root, .. } => match fs::read_dir(root.join(plain(folder)?)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                entries => entries
                    .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
                    .map_err(|source| LoadError::Read { path: folder.into(), source })?
                    .iter()
                    .filter_map(|e| e.file_name().into_string().ok())
                    .collect(),
            },
            Location::Embedded { files, .. } => files
                .iter()
                .filter_map(|f| f.strip_prefix(folder)?.strip_prefix('/'))
                .filter(|f| !f.contains('/'))
                .map(str::to_owned)
                .collect(),
            Location::SingleFile(single) => {
                let inside = |f: String| Some(f.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
                single.files().filter_map(inside).filter(|f| !f.contains('/')).collect()
            }
            Location::Transformer(file) => file.names(folder)?,
        };
        names.sort();
        Ok(names)
    }

    /// The content of a file. A file on disk is opened and not yet read.
    ///
    /// # Errors
    /// There is no such file in the folder, or it cannot be opened.
    pub fn file(&self, path: &str) -> Result<FileContent, LoadError> {
        let path = plain(path)?;
        let absent = || LoadError::Absent { path: path.into() };
        match &self.0 {
            Location::Disk { root, within } => find(root, within, path),
            Location::Embedded { read, .. } => read(path).map(FileContent::Held).ok_or_else(absent),
            Location::SingleFile(single) => {
                let text = single.text(path).ok_or_else(absent)?;
                Ok(FileContent::Held(Cow::Owned(text.into_bytes())))
            }
            Location::Transformer(file) => file.file(path),
        }
    }

    /// All bytes of a file, at most [`LARGEST_TEXT`].
    ///
    /// # Errors
    /// Those of [`ModelFolder::file`]; or the file is longer, cannot be read, or is a Git LFS pointer.
    pub fn bytes(&self, path: &str) -> Result<Cow<'static, [u8]>, LoadError> {
        let content = self.file(path)?.read_all(LARGEST_TEXT);
        let content = content.map_err(|source| LoadError::Read { path: path.into(), source })?;
        match is_pointer(&content) {
            true => Err(LoadError::LfsPointer { path: path.into() }),
            false => Ok(content),
        }
    }

    /// The text of a file, which must be UTF-8.
    ///
    /// # Errors
    /// Those of [`ModelFolder::bytes`], or the file is not UTF-8.
    pub fn text(&self, path: &str) -> Result<String, LoadError> {
        let text = String::from_utf8(self.bytes(path)?.into_owned()).map_err(|_| LoadError::Read {
            path: path.into(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, "is not UTF-8; save it in that encoding"),
        })?;
        // Some editors on Windows begin UTF-8 with this mark.
        Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
    }

    /// The error for a file that does not exist, or for a link whose target does not exist.
    pub(super) fn absent(&self, path: &str) -> LoadError {
        match &self.0 {
            Location::Disk { root, .. } => absent(root, path),
            _ => LoadError::Absent { path: path.into() },
        }
    }

    /// The JSON object in a file. `Infinity`, `-Infinity` and `NaN`, which Python writes, are read as strings.
    ///
    /// # Errors
    /// Those of [`ModelFolder::text`], or the file is not a JSON object.
    pub fn json(&self, path: &str) -> Result<Map<String, Value>, LoadError> {
        json::object(&self.text(path)?).map_err(|source| LoadError::Json { path: path.into(), source })
    }
}

impl fmt::Debug for ModelFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Location::Disk { root, .. } => write!(f, "ModelFolder({})", root.display()),
            Location::Embedded { name, .. } => write!(f, "ModelFolder(embedded {name})"),
            Location::SingleFile(single) => write!(f, "ModelFolder(file {})", single.path()),
            Location::Transformer(file) => write!(f, "ModelFolder(file {})", file.path.display()),
        }
    }
}

fn find(root: &Path, within: &[PathBuf], path: &str) -> Result<FileContent, LoadError> {
    let real = root.join(path).canonicalize().map_err(|source| unreadable(root, path, source))?;
    if !real.starts_with(root) && !within.iter().any(|other| real.starts_with(other)) && !is_cached(&real) {
        return Err(LoadError::Escapes { path: path.into() });
    }
    FileContent::open(&real).map_err(|source| unreadable(root, path, source))
}

/// Whether a path is inside the cache of a Hugging Face repository, `models--ORG--NAME/blobs/…`, to which the links of
/// its snapshots lead.
fn is_cached(path: &Path) -> bool {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let is_store =
        |pair: &[Cow<'_, str>]| pair[0].starts_with("models--") && ["blobs", "snapshots"].contains(&&*pair[1]);
    parts.windows(2).any(is_store)
}

fn unreadable(root: &Path, path: &str, source: std::io::Error) -> LoadError {
    match source.kind() {
        std::io::ErrorKind::NotFound => absent(root, path),
        _ => LoadError::Read { path: path.into(), source },
    }
}

fn absent(root: &Path, path: &str) -> LoadError {
    match fs::read_link(root.join(path)) {
        Ok(target) => LoadError::DeadLink { path: path.into(), target: target.display().to_string() },
        Err(_) => LoadError::Absent { path: path.into() },
    }
}

fn plain(path: &str) -> Result<&str, LoadError> {
    if is_plain(path) { Ok(path) } else { Err(LoadError::Escapes { path: path.into() }) }
}

/// Whether a path is relative and stays inside the folder; `.` is the folder itself.
fn is_plain(path: &str) -> bool {
    let stays = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    !path.contains('\\') && Path::new(path).components().all(stays)
}
