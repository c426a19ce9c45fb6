//! The errors of loading models.

use std::fmt;

use serde_json::Value;

use super::lora::LoraMismatch;

/// Why a model folder could not be loaded. Every variant names the file, key or tensors at fault.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{path}: no such file in the model folder")]
    Absent { path: String },
    #[error("{path}: a link to {target}, which does not exist; the download did not end, or the file was removed")]
    DeadLink { path: String, target: String },
    #[error(
        "{path}: the file is outside the model folder and outside the folder of the setting (models.dir, \
         controlnets.dir); copy the file into the model folder"
    )]
    Escapes { path: String },
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: not valid JSON: {source}")]
    Json { path: String, source: serde_json::Error },
    #[error("{path}: `{key}`: {reason}")]
    BadKey { path: String, key: String, reason: String },
    #[error("{path}: `{key}` = {value} is not supported (supported: {supported})")]
    UnsupportedKey { path: String, key: String, value: Box<Value>, supported: String },
    #[error("{path}: unknown key `{key}` = {value}")]
    UnknownKey { path: String, key: String, value: Box<Value> },
    #[error("{path}: not a sound safetensors file: {reason}")]
    Safetensors { path: String, reason: String },
    #[error("{path}: not a sound GGUF file: {reason}")]
    Gguf { path: String, reason: String },
    #[error(
        "{path}: a Git LFS pointer in place of the file; run `git lfs pull` in the repository, or download the file itself"
    )]
    LfsPointer { path: String },
    #[error(
        "{path}: a pickle, which can run code when it is read; only safetensors and GGUF files are read: convert the folder in Python \
         with diffusers, DiffusionPipeline.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )]
    Pickle { path: String },
    #[error("{path}: not a usable tokenizer: {reason}")]
    Tokenizer { path: String, reason: String },
    #[error("{left} = {left_value} does not fit {right} = {right_value}")]
    Disagree { left: &'static str, left_value: String, right: &'static str, right_value: String },
    #[error(transparent)]
    Tensors(#[from] Box<TensorMismatch>),
    #[error("{path}: not a checkpoint that can be loaded: {reason}")]
    Checkpoint { path: String, reason: String },
    #[error(transparent)]
    Lora(#[from] Box<LoraMismatch>),
    #[error("the colors of previews cannot be computed, because the decoder failed: {0}")]
    Preview(String),
    #[error("device: {0}")]
    Device(#[from] candle_core::Error),
}

impl LoadError {
    /// Whether a later attempt with the same files would fail as well. Other errors come from the disk, from the
    /// device, and from files that are missing for now.
    pub fn is_lasting(&self) -> bool {
        use LoadError::{Absent, DeadLink, Device, Read};
        !matches!(self, Absent { .. } | DeadLink { .. } | Device(_) | Read { .. })
    }

    /// Whether a file could not be read for a transient reason, such as a lack of file descriptors.
    pub fn is_transient(&self) -> bool {
        matches!(self, LoadError::Read { source, .. } if crate::transient::is_transient(source))
    }

    /// Whether the error says that a file has changed since it was listed, so that a later attempt can succeed.
    pub fn is_change(&self) -> bool {
        matches!(self, LoadError::Read { source, .. } if super::file::is_change(source))
    }
}

/// The tensors of one component that are missing, unused, of the wrong shape, or of a type that is not a float.
#[derive(Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct TensorMismatch {
    /// The folder of the component, for instance `unet`.
    pub component: String,
    /// Tensors that the network requests and the files do not have: name and expected shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Tensors of the files that the network does not request: name and shape.
    pub unused: Vec<(String, Vec<usize>)>,
    /// Tensors of the wrong shape: name, expected shape, shape in the file.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors whose numbers are neither floats of 8 to 64 bits nor quantized: name and type.
    pub not_float: Vec<(String, String)>,
}

impl TensorMismatch {
    /// Sorts by name. Otherwise, the order would depend on the order in which layers are built, and on the order of a
    /// hash map.
    pub(super) fn sort(&mut self) {
        self.missing.sort();
        self.unused.sort();
        self.misshapen.sort();
        self.not_float.sort();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misshapen.is_empty() && self.not_float.is_empty()
    }
}

impl fmt::Display for TensorMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the tensors do not fit the network", self.component)?;
        list(f, self.missing.iter().map(|(name, shape)| format!("missing {name} {shape:?}")))?;
        list(f, self.unused.iter().map(|(name, shape)| format!("unused {name} {shape:?}")))?;
        let misshapen = |(name, expected, actual): &(String, Vec<usize>, Vec<usize>)| {
            format!("{name} is {actual:?}, expected {expected:?}")
        };
        list(f, self.misshapen.iter().map(misshapen))?;
        list(f, self.not_float.iter().map(|(name, dtype)| format!("{name} is of type {dtype}, expected a float")))
    }
}

/// How many faults of each kind a message lists. A longer list would be of no use: the file then belongs to another
/// network.
const LISTED: usize = 32;

fn list(f: &mut fmt::Formatter<'_>, faults: impl ExactSizeIterator<Item = String>) -> fmt::Result {
    let count = faults.len();
    for fault in faults.take(LISTED) {
        write!(f, "; {fault}")?;
    }
    if count > LISTED { write!(f, "; and {} more like this", count - LISTED) } else { Ok(()) }
}
