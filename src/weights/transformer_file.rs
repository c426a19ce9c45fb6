//! A file with a transformer under its original names, and perhaps with further networks, presented as a model folder.
//!
//! Such a file has no tokenizers and no configurations. `NAME.json` in the folder of `NAME.safetensors` or `NAME.gguf`
//! names a model folder in the same folder, which has the other parts: `{"base": "FOLDER"}`. `"transformer"` in
//! `NAME.json` overrides keys of `transformer/config.json`, which otherwise follow from the shapes of the tensors.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    FileContent, LoadError, ModelFolder, Stamp, fingerprint, gguf,
    original::{Original, Other},
    single_file::TRANSFORMER_CONTROL_NETS,
    weight_file,
};

/// The file, and the folder with the other parts.
pub(super) struct TransformerFile {
    pub path: PathBuf,
    stamp: Option<Stamp>,
    /// `transformer/config.json`.
    config: Map<String, Value>,
    /// The file's other networks.
    others: Vec<&'static Other>,
    /// The names of tensors that belong to none of the file's networks.
    left: Vec<String>,
    pub base: ModelFolder,
}

/// The folder's files that are made from the file.
const CONFIG: &str = "transformer/config.json";
const SAFETENSORS: &str = "transformer/diffusion_pytorch_model.safetensors";
const GGUF: &str = "transformer/diffusion_pytorch_model.gguf";

/// Maximum number of names in a note.
const MOST_NAMES: usize = 8;

/// The folder that `NAME.json` names as `base`, for the file `NAME.safetensors` or `NAME.gguf` at `path`, whether this
/// folder exists or not. `None` if there is no such `NAME.json`.
pub fn base_folder(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let name = path.with_extension("json").file_name()?.to_str()?.to_owned();
    let keys = ModelFolder::open(folder).ok()?.json(&name).ok()?;
    let base = keys.get("base")?.as_str().filter(|base| is_name(base))?;
    Some(folder.join(base))
}

impl TransformerFile {
    /// Opens the file at `path`. Returns `None` if it is no transformer with original names.
    ///
    /// # Errors
    /// The file is broken, `NAME.json` is missing or broken, or the folder that it names cannot be opened.
    pub fn open(path: &Path) -> Result<Option<Self>, LoadError> {
        let shown = path.display().to_string();
        let content = FileContent::open(path).map_err(|source| LoadError::Read { path: shown.clone(), source })?;
        let header = weight_file::header(&shown, &content)?;
        let is_control_net = |name: &String| TRANSFORMER_CONTROL_NETS.iter().any(|start| name.starts_with(start));
        let Some(original) = Original::of(header.tensors.keys()) else { return Ok(None) };
        if header.tensors.keys().any(is_control_net) {
            return Ok(None);
        }
        let (beside, folder) = (path.with_extension("json"), path.parent().unwrap_or(Path::new("")));
        let name = beside.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let bad = |key: &str, reason: &str| {
            let (path, key, reason) = (beside.display().to_string(), key.to_owned(), reason.to_owned());
            LoadError::BadKey { path, key, reason }
        };
        let parent = ModelFolder::open(folder)?;
        if !parent.has(&name) {
            let reason = format!(
                "it has no tokenizers and no configurations; {name} beside it must name a model folder that has them, \
                 for example {{\"base\": \"FOLDER\"}}"
            );
            return Err(LoadError::Checkpoint { path: shown, reason });
        }
        let mut config =
            original.config(&header.tensors).map_err(|reason| LoadError::Checkpoint { path: shown, reason })?;
        let mut base = None;
        for (key, value) in parent.json(&name)? {
            match (key.as_str(), value) {
                ("base", Value::String(name)) if is_name(&name) => base = Some(name),
                ("base", _) => return Err(bad(&key, "must be the name of a folder beside the file")),
                ("transformer", Value::Object(keys)) => config.extend(keys),
                ("transformer", _) => return Err(bad(&key, "expected an object")),
                (_, value) => {
                    return Err(LoadError::UnknownKey {
                        path: beside.display().to_string(),
                        key,
                        value: Box::new(value),
                    });
                }
            }
        }
        let base = base.ok_or_else(|| bad("base", "must be the name of a folder beside the file"))?;
        let base = ModelFolder::open_within(&folder.join(base), &[folder])?;
        let (others, left) = (original.others(&header.tensors), original.left(&header.tensors));
        for (at, other) in others.iter().enumerate() {
            if let Some(same) = others[..at].iter().find(|same| same.component == other.component) {
                let reason =
                    format!("it has two networks for {}: {}… and {}…", other.component, same.prefix, other.prefix);
                return Err(LoadError::Checkpoint { path: path.display().to_string(), reason });
            }
        }
        Ok(Some(Self { path: path.to_owned(), stamp: content.stamp(), config, others, left, base }))
    }

    /// Notes for users on how the file was read.
    pub fn notes(&self) -> Vec<String> {
        let most: Vec<&str> = self.left.iter().take(MOST_NAMES).map(String::as_str).collect();
        let more = if self.left.len() > most.len() { ", …" } else { "" };
        let ignored = "tensors that belong to no network are ignored";
        let note = || format!("{} {ignored}: {}{more}", self.left.len(), most.join(", "));
        Some(note()).filter(|_| !self.left.is_empty()).into_iter().collect()
    }

    /// The text of an error for users, who do not see the configuration that is made for the file, and know the file by
    /// its own name.
    pub fn told(&self, error: &str) -> String {
        if let Some(rest) = error.strip_prefix(CONFIG) {
            return format!("{}, \"transformer\"{rest}", self.path.with_extension("json").display());
        }
        let others = self.others.iter().map(|other| self.path_of(other));
        let inside = std::iter::once(self.weights().to_owned()).chain(others);
        let rest = inside.filter_map(|path| error.strip_prefix(&*path).map(str::to_owned)).next();
        rest.map_or_else(|| error.to_owned(), |rest| format!("{}{rest}", self.path.display()))
    }

    /// The path of the file's weights in the folder.
    fn weights(&self) -> &'static str {
        if gguf::is_gguf(&self.path.to_string_lossy()) { GGUF } else { SAFETENSORS }
    }

    /// The folder's weight file that is another network of the file, if the path is in the folder of such a network and
    /// is no configuration.
    fn other(&self, path: &str) -> Option<&'static Other> {
        let (component, name) = path.split_once('/')?;
        self.others.iter().find(|other| other.component == component && is_weights(name)).copied()
    }

    /// Whether the folder takes this path from the file, and not from the base folder.
    fn owns(&self, path: &str) -> bool {
        path.starts_with("transformer/") || self.other(path).is_some()
    }

    /// The path of another network's weights in the folder.
    fn path_of(&self, other: &Other) -> String {
        let is_gguf = gguf::is_gguf(&self.path.to_string_lossy());
        let file = if is_gguf { other.file.replace(".safetensors", ".gguf") } else { other.file.to_owned() };
        format!("{}/{file}", other.component)
    }

    /// Whether this is the path of the file's weights.
    fn is_file(&self, path: &str) -> bool {
        path == self.weights() || self.other(path).is_some_and(|other| path == self.path_of(other))
    }

    pub fn has(&self, path: &str) -> bool {
        if self.owns(path) { path == CONFIG || self.is_file(path) } else { self.base.has(path) }
    }

    pub fn names(&self, folder: &str) -> Result<Vec<String>, LoadError> {
        let of_others = self.others.iter().map(|other| self.path_of(other));
        let own = [CONFIG, self.weights()].map(str::to_owned).into_iter().chain(of_others);
        let inside = |path: String| Some(path.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
        let own: Vec<String> = own.filter_map(inside).collect();
        let is_of_base = |name: &String| !self.owns(&format!("{folder}/{name}"));
        Ok(self.base.names(folder)?.into_iter().filter(is_of_base).chain(own).collect())
    }

    /// The content of one of the folder's files.
    ///
    /// # Errors
    /// There is no such file, or it cannot be opened, or the transformer's file has changed.
    pub fn file(&self, path: &str) -> Result<FileContent, LoadError> {
        match path {
            CONFIG => {
                let text = Value::Object(self.config.clone()).to_string();
                Ok(FileContent::Held(Cow::Owned(text.into_bytes())))
            }
            weights if self.is_file(weights) => {
                let opened = match self.stamp {
                    Some(stamp) => FileContent::open_unchanged(&self.path, stamp),
                    None => FileContent::open(&self.path),
                };
                opened.map_err(|source| LoadError::Read { path: self.path.display().to_string(), source })
            }
            _ if self.owns(path) => Err(LoadError::Absent { path: path.to_owned() }),
            _ => self.base.file(path),
        }
    }

    pub fn fingerprint(&self) -> String {
        let config = Value::Object(self.config.clone()).to_string();
        let own = fingerprint::of_file(&self.path) + &fingerprint::of_bytes(CONFIG, config.as_bytes());
        own + &self.base.fingerprint()
    }
}

/// Whether a file of a component has weights or lists such files.
fn is_weights(name: &str) -> bool {
    name.contains(".safetensors") || name.ends_with(".bin") || gguf::is_gguf(name)
}

/// Whether the text is the name of an entry of a folder.
fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none() && !name.contains('\\')
}
