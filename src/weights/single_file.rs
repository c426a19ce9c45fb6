//! A checkpoint in one file, as its first authors wrote it, seen as a folder in diffusers' layout.
//!
//! | file | tensors |
//! |---|---|
//! | Stable Diffusion 1 | `model.diffusion_model.…`, `first_stage_model.…`, `cond_stage_model.transformer.…` |
//! | Stable Diffusion 2 | the same with OpenCLIP's `cond_stage_model.model.…` |
//! | Stable Diffusion XL | `conditioner.embedders.0.transformer.…` and `conditioner.embedders.1.model.…` |
//! | its refiner | `conditioner.embedders.0.model.…` alone |
//! | ControlNets | `control_model.…`, or diffusers' own names |
//!
//! No tensor is copied: each of the folder's tensors is a piece of the one mapped file. Configurations follow from the
//! tensors' shapes and from what all published models of a kind have in common. What a file cannot tell, above all whether
//! a Stable Diffusion 2 predicts noise or velocity, a file `NAME.json` beside `NAME.safetensors` can say (see [`sidecar`]).

mod configs;
mod kind;
mod outline;
mod parts;
mod sidecar;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde_json::{Map, Value};

use self::{kind::Kind, parts::Parts};
use super::{FileBytes, LoadError, clip_vocabulary, header::Header, tensors::Entry};

/// One mapped file, and the folder that is made of it.
pub(super) struct SingleFile {
    bytes: FileBytes,
    parts: Parts,
    /// The folder's configurations by path.
    configs: BTreeMap<&'static str, Map<String, Value>>,
    /// Folders with CLIP's vocabulary, and what pads its prompts.
    tokenizers: Vec<(&'static str, &'static str)>,
    path: String,
}

impl SingleFile {
    /// Maps the file, whose header alone is read, and reads what its owner says of it.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let shown = path.display().to_string();
        let bytes = super::folder::map_file(path).map_err(|source| LoadError::Read { path: shown.clone(), source })?;
        let mut file = Self::new(shown, bytes)?;
        sidecar::merge(&path.with_extension("json"), &mut file.configs)?;
        Ok(file)
    }

    /// A file that is in memory; `path` is what errors call it.
    pub fn new(path: String, bytes: FileBytes) -> Result<Self, LoadError> {
        let header = Header::read(&path, &bytes)?;
        let no_checkpoint = |reason: String| LoadError::Checkpoint { path: path.clone(), reason };
        let kind = Kind::of(&header).map_err(no_checkpoint)?;
        let parts = Parts::sort(&path, &header, kind)?;
        let configs = configs::of(kind, &parts, &header).map_err(no_checkpoint)?;
        Ok(Self { bytes, parts, configs, tokenizers: kind.tokenizers(), path })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The folder's files.
    pub fn files(&self) -> impl Iterator<Item = String> {
        let configs = self.configs.keys().map(|path| (*path).to_owned());
        let of_tokenizer = |(folder, _): &(&'static str, _)| {
            let folder = *folder;
            clip_vocabulary::FILES.into_iter().map(move |file| format!("{folder}/{file}"))
        };
        configs.chain(self.tokenizers.iter().flat_map(of_tokenizer))
    }

    /// The text of one of them. The configuration of a ControlNet, the one file of its folder, is found in a folder of any
    /// name too, as the catalogue of ControlNets sees them from above.
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

    /// The tensors of a component by their diffusers names, and the file that they lie in.
    pub fn tensors(&self, component: &str) -> Result<(FileBytes, HashMap<String, Entry>), LoadError> {
        let tensors = self.parts.of(component).ok_or_else(|| LoadError::Checkpoint {
            path: self.path.clone(),
            reason: format!("it has no {component}"),
        })?;
        Ok((self.bytes.clone(), tensors.clone()))
    }
}
