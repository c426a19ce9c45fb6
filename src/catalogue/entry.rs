use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, OnceLock},
};

use super::{
    embedded,
    listing::{Source, stamp as listing_stamp},
};
use crate::{
    families::{self, Description, Family, Outline},
    generation::ModelCard,
    weights::{ModelFolder, imprint, lora::Modules},
};

/// A model of the catalogue, whose weights are in memory or not.
#[derive(Debug)]
pub(super) struct Entry {
    /// Of the name and the files: what was computed by other files of the same name has another key.
    pub key: Arc<str>,
    files: Files,
    /// Its folder; why it cannot be used.
    usable: Result<Usable, String>,
    /// What adapters can stand beside, once somebody has asked.
    modules: OnceLock<Result<Modules, String>>,
    /// Of the files, as they were when the weights were first read.
    imprint: OnceLock<String>,
}

pub(super) struct Usable {
    pub folder: ModelFolder,
    pub family: &'static dyn Family,
    pub card: Arc<ModelCard>,
    /// Memory that the weights take.
    pub bytes: u64,
    /// What people should know of how its files were read.
    pub notes: Vec<String>,
    /// The sizes of its layers.
    pub outline: Box<dyn Outline>,
}

impl std::fmt::Debug for Usable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usable")
            .field("family", &self.family.name())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Where a model's files are, and how they were when the model was listed.
#[derive(Debug)]
enum Files {
    Embedded,
    OnDisk { source: Source, stamp: String },
}

impl Entry {
    pub fn embedded() -> Entry {
        Entry::new(embedded::NAME, embedded::NAME.into(), Files::Embedded, || Ok(embedded::folder()))
    }

    /// Reads the configurations and the heads of the files of a model inside `dir`.
    pub fn of(name: &str, source: &Source, dir: &Path) -> Entry {
        let files = Files::OnDisk { source: source.clone(), stamp: listing_stamp(source) };
        Entry::new(name, key(name, source), files, || match source {
            Source::Folder(path) => ModelFolder::open_within(path, &[dir]).map_err(|error| error.to_string()),
            Source::SingleFile(path) => match ModelFolder::single(path, &families::checkpoints()) {
                Ok(folder) if folder.has("model_index.json") => Ok(folder),
                Ok(_) => Err("it is a ControlNet, which belongs into the folder of controlnets.dir".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Source::Unusable(reason) => Err(reason.clone()),
        })
    }

    fn new(name: &str, key: Arc<str>, files: Files, open: impl FnOnce() -> Result<ModelFolder, String>) -> Entry {
        let look = || {
            let folder = open()?;
            let family = families::of(&folder).map_err(|error| folder.told(&error))?;
            let description = family.describe(name, &folder).map_err(|error| folder.told(&error))?;
            let Description { card, bytes, notes, outline } = description;
            Ok(Usable { folder, family, card: Arc::new(card), bytes, notes, outline })
        };
        // One file that nobody thought of must not keep all other models from being served.
        let usable = catch_unwind(AssertUnwindSafe(look));
        let usable = usable.unwrap_or_else(|_| Err("its files made latentd panic; see the log".to_owned()));
        Entry { key, files, usable, modules: OnceLock::new(), imprint: OnceLock::new() }
    }

    pub fn usable(&self) -> Result<&Usable, &str> {
        self.usable.as_ref().map_err(String::as_str)
    }

    pub fn is_embedded(&self) -> bool {
        matches!(self.files, Files::Embedded)
    }

    /// Whether this entry is of the same files, which have not changed.
    pub fn is_of(&self, other: &Source) -> bool {
        match &self.files {
            Files::Embedded => false,
            Files::OnDisk { source, stamp } => source == other && *stamp == listing_stamp(other),
        }
    }

    /// # Errors
    /// The files are no longer those that were listed.
    pub fn check_unchanged(&self) -> Result<(), String> {
        match &self.files {
            Files::OnDisk { source, stamp } if *stamp != listing_stamp(source) => Err(CHANGED.to_owned()),
            _ => Ok(()),
        }
    }

    /// By what the files are known again.
    pub fn imprint(&self) -> &str {
        let of_folder = || self.usable.as_ref().map(|usable| usable.folder.imprint()).unwrap_or_default();
        self.imprint.get_or_init(of_folder)
    }

    /// What adapters can stand beside.
    pub fn modules(&self) -> Result<&Modules, &str> {
        let modules = || {
            let Usable { family, folder, .. } = self.usable()?;
            family.modules(folder).map_err(|error| error.to_string())
        };
        self.modules.get_or_init(modules).as_ref().map_err(String::as_str)
    }
}

/// What stands between a name and the digest of files in a key; no name has it.
const SEPARATOR: char = '\n';

/// The key of a model with these files as they are now.
pub(super) fn key(name: &str, source: &Source) -> Arc<str> {
    format!("{name}{SEPARATOR}{}", imprint::digest(&listing_stamp(source))).into()
}

/// What stands for a model of this key on a device: another thing in memory than the same model on another one.
pub(super) fn on_device(key: &str, device: &str) -> String {
    format!("{key}{SEPARATOR}{device}")
}

/// The key that [`on_device`] was given.
pub(super) fn key_of(on_device: &str) -> &str {
    on_device.rsplit_once(SEPARATOR).map_or(on_device, |(key, _)| key)
}

/// The name of the model that a key is of.
pub(super) fn name_of(key: &str) -> &str {
    key.split(SEPARATOR).next().unwrap_or(key)
}

const CHANGED: &str = "its files have changed since they were listed; they are listed again within two of \
                       models.poll_interval_s, at SIGHUP and by POST /admin/reload";
