//! A checkpoint in one file with the tensor names of the original code, presented as a folder in diffusers' layout.
//!
//! A checkpoint has tensors `model.diffusion_model.…`, `first_stage_model.…` and tensors of text encoders. The names of
//! the text encoders' tensors identify the checkpoint's kind. The families define the kinds (see [`Checkpoint`]). A
//! ControlNet has `control_model.…`, or diffusers' own names.
//!
//! Each of the folder's tensors is a part of the one file. Configurations follow from the tensors' shapes and from what
//! all published models of a kind have in common. `NAME.json` next to `NAME.safetensors` can add what a file does not
//! contain, for example whether the model predicts noise or velocity, which some files do not tell (see [`sidecar`]).

mod checkpoint;
mod configs;
mod kind;
mod marks;
mod outline;
mod parts;
mod sidecar;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde_json::{Map, Value};

use self::{kind::Kind, parts::Parts};
use super::{FileContent, LoadError, Stamp, clip_vocabulary, tensors::Entry, weight_file};

pub use checkpoint::{Checkpoint, Purpose, TextEncoder};
pub(super) use kind::TRANSFORMER_CONTROL_NETS;
pub use marks::Marks;

const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// How many of the ignored tensors a note names.
const LISTED: usize = 8;

/// One file, and the folder that is made from it.
pub(super) struct SingleFile {
    content: Content,
    parts: Parts,
    /// The folder's configurations, by path.
    configs: BTreeMap<&'static str, Map<String, Value>>,
    /// The folders with CLIP's vocabulary, and their padding tokens.
    tokenizers: Vec<(&'static str, &'static str)>,
    path: String,
    marks: Marks,
    /// Whether `NAME.json` changes the type of prediction.
    is_overruled: bool,
}

/// Where the file's content is.
enum Content {
    /// In the file at `path`, which is opened again for each use, if it still has this stamp.
    Disk(Stamp),
    Held(FileContent),
}

impl SingleFile {
    /// Opens a file, reads its header, and merges `NAME.json` into the configurations.
    pub fn open(path: &Path, known: &[&'static Checkpoint]) -> Result<Self, LoadError> {
        let shown = path.display().to_string();
        let bytes = FileContent::open(path).map_err(|source| LoadError::Read { path: shown.clone(), source })?;
        let mut file = Self::new(shown, bytes, known)?;
        let prediction = |file: &Self| file.configs.get(SCHEDULER)?.get("prediction_type").cloned();
        let before = prediction(&file);
        sidecar::merge(&path.with_extension("json"), &mut file.configs)?;
        file.is_overruled = prediction(&file) != before;
        Ok(file)
    }

    /// Makes the folder from the header of a file. `path` names the file in errors.
    pub fn new(path: String, file: FileContent, known: &[&'static Checkpoint]) -> Result<Self, LoadError> {
        let header = weight_file::header(&path, &file)?;
        let no_checkpoint = |reason: String| LoadError::Checkpoint { path: path.clone(), reason };
        let kind = Kind::of(&header, known).map_err(no_checkpoint)?;
        let parts = Parts::sort(&path, &header, kind)?;
        let reads_edm_marks = kind.checkpoint().is_some_and(|checkpoint| checkpoint.reads_edm_marks);
        let marks = Marks::read(&path, &file, &header, reads_edm_marks)?;
        let configs = configs::of(kind, &parts, &marks).map_err(no_checkpoint)?;
        // Most files of a large collection are not in use, so none is kept open.
        let content = file.stamp().map_or_else(|| Content::Held(file), Content::Disk);
        Ok(Self { content, parts, configs, tokenizers: kind.tokenizers(), path, marks, is_overruled: false })
    }

    /// Notes for users on how the file was read: where the type of prediction comes from, and which tensors were
    /// ignored.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let scheduler = self.configs.get(SCHEDULER);
        let prediction = scheduler.and_then(|config| config.get("prediction_type"));
        let defaults = scheduler.and_then(|config| config.get("_use_default_values")).and_then(Value::as_array);
        if defaults.is_some_and(|keys| keys.iter().any(|key| key == "prediction_type")) {
            let default = "prediction_type is the default of the scheduler's class";
            notes.push(format!("{default} (by _use_default_values of the .json file beside it)"));
        } else if let Some(prediction) = prediction.and_then(Value::as_str) {
            let by = match (self.is_overruled, self.marks.prediction) {
                (true, _) => "by the .json file beside it".to_owned(),
                (false, Some((_, mark))) => format!("by the file's {mark}"),
                (false, None) => match &self.marks.unknown {
                    Some(unknown) => format!("the file's {} is {unknown:?}, which is not known", marks::NOTE),
                    None => "no mark in the file".to_owned(),
                },
            };
            notes.push(format!("prediction_type {prediction} ({by})"));
        }
        let left = &self.parts.left;
        if !left.is_empty() {
            let mut named: Vec<&str> = left.iter().map(String::as_str).take(LISTED).collect();
            let more = format!("and {} more", left.len().saturating_sub(LISTED));
            if left.len() > LISTED {
                named.push(&more);
            }
            notes.push(format!("{} tensors that belong to no network are ignored: {}", left.len(), named.join(", ")));
        }
        notes
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Rewrites an error of one of the folder's configurations to name the `.json` file next to the checkpoint, if it
    /// exists: users can edit that file but do not see the configurations.
    pub fn told(&self, error: &str) -> String {
        let beside = Path::new(&self.path).with_extension("json");
        match sidecar::key_of(error).filter(|_| beside.is_file()) {
            Some((key, rest)) => format!("{}: {key}{rest}", beside.display()),
            None => error.to_owned(),
        }
    }

    /// The paths of the folder's files.
    pub fn files(&self) -> impl Iterator<Item = String> {
        let configs = self.configs.keys().map(|path| (*path).to_owned());
        let of_tokenizer = |(folder, _): &(&'static str, _)| {
            let folder = *folder;
            clip_vocabulary::FILES.into_iter().map(move |file| format!("{folder}/{file}"))
        };
        configs.chain(self.tokenizers.iter().flat_map(of_tokenizer))
    }

    /// The text of one of the folder's files. The configuration of a ControlNet, the only file of its folder, is found
    /// as `config.json` and as `ANY/config.json`, because the catalogue puts the name of a folder before the names of a
    /// ControlNet's files.
    pub fn text(&self, path: &str) -> Option<String> {
        let config = self.configs.get(path).or_else(|| match path.split_once('/') {
            Some((_, file)) if self.parts.is_control_net() => self.configs.get(file),
            _ => None,
        });
        if let Some(config) = config {
            return Some(Value::Object(config.clone()).to_string());
        }
        let (folder, name) = path.split_once('/')?;
        let (_, pad) = self.tokenizers.iter().find(|(tokenizer, _)| *tokenizer == folder)?;
        clip_vocabulary::file(name, pad)
    }

    /// The tensors of a component by their diffusers names.
    ///
    /// # Errors
    /// The file has no such component.
    pub fn tensors(&self, component: &str) -> Result<&HashMap<String, Entry>, LoadError> {
        self.parts
            .of(component)
            .ok_or_else(|| LoadError::Checkpoint { path: self.path.clone(), reason: format!("it has no {component}") })
    }

    /// The content of the file, checked to be the same file as when its header was read.
    ///
    /// # Errors
    /// The file is gone, or has changed since.
    pub fn content(&self) -> Result<FileContent, LoadError> {
        match &self.content {
            Content::Disk(stamp) => FileContent::open_unchanged(Path::new(&self.path), *stamp)
                .map_err(|source| LoadError::Read { path: self.path.clone(), source }),
            Content::Held(content) => Ok(content.clone()),
        }
    }
}
