//! One model of the catalogue: its files, its card, and whether it can be used.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, OnceLock},
};

use super::{
    embedded,
    fault::Fault,
    listing::{Source, stamp as listing_stamp},
};
use crate::{
    device::Device,
    families::{self, Description, Family, ModelSize, Outline},
    generation::ModelCard,
    models::SafetyChecker,
    weights::{ModelFolder, fingerprint, lora::Modules},
};

/// A model of the catalogue, loaded or not.
#[derive(Debug)]
pub(super) struct Entry {
    /// Identifies the name and the files. A model of the same name with other files has another key.
    pub key: Arc<str>,
    files: Files,
    /// What was read from the files, or why the model cannot be used.
    usable: Result<Usable, Fault>,
    /// Why the weights cannot be loaded, however often this is tried.
    unloadable: OnceLock<String>,
    /// The modules to which adapters can be added; read at the first request.
    modules: OnceLock<Modules>,
    /// The fingerprint of the files, computed at the first request for it and kept.
    fingerprint: OnceLock<String>,
    /// The digest of the weights, computed at the first request for it and kept.
    weights_sha256: OnceLock<Option<String>>,
    /// Looked for at the first request for it.
    has_safety_checker: OnceLock<bool>,
}

/// What is known about a model that can be used, before its weights are loaded.
pub(super) struct Usable {
    pub folder: ModelFolder,
    pub family: &'static dyn Family,
    pub card: Arc<ModelCard>,
    /// The memory that the weights take.
    pub size: ModelSize,
    /// The parts of `size` that a device may offload; see [`Family::offloadable`].
    pub offloadable: Vec<ModelSize>,
    /// Notes for operators on how the files were read.
    pub notes: Vec<String>,
    /// The sizes of the model's layers.
    pub outline: Box<dyn Outline>,
}

impl Usable {
    /// Bytes of the weights that stay in the memory of a device.
    pub fn bytes_on(&self, device: &Device) -> u64 {
        self.size.bytes(device).saturating_sub(self.offloaded_bytes(device))
    }

    /// Bytes of the weights in the memory of the host, because the device offloads them.
    pub fn offloaded_bytes(&self, device: &Device) -> u64 {
        self.offloaded(device).fold(0, u64::saturating_add)
    }

    /// Maximum bytes of weights that are copied to the device at the same time, if the device offloads.
    pub fn copied_bytes(&self, device: &Device) -> u64 {
        self.offloaded(device).max().unwrap_or(0)
    }

    fn offloaded(&self, device: &Device) -> impl Iterator<Item = u64> {
        self.offloadable.iter().filter(|_| device.offloads()).map(|size| size.bytes(device))
    }
}

impl std::fmt::Debug for Usable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usable").field("family", &self.family.name()).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Where a model's files are, and their state when the model was listed.
#[derive(Debug)]
enum Files {
    Embedded,
    OnDisk { source: Source, stamp: String },
}

impl Entry {
    /// The embedded model.
    pub fn embedded() -> Entry {
        Entry::new(embedded::NAME, embedded::NAME.into(), Files::Embedded, || Ok(embedded::folder()))
    }

    /// Reads the configurations and file headers of a model in `dir`.
    pub fn of(name: &str, source: &Source, dir: &Path) -> Entry {
        let files = Files::OnDisk { source: source.clone(), stamp: listing_stamp(source) };
        Entry::new(name, key(name, source), files, || match source {
            Source::Folder(path) => ModelFolder::open_within(path, &[dir]).map_err(Fault::from),
            Source::SingleFile(path) => match ModelFolder::single(path, &families::checkpoints()) {
                Ok(folder) if folder.has("model_index.json") => Ok(folder),
                Ok(_) => Err("it is a ControlNet, which belongs into the folder of controlnets.dir".to_owned().into()),
                Err(error) => Err(error.into()),
            },
            Source::Unusable(fault) => Err(fault.clone()),
        })
    }

    fn new(name: &str, key: Arc<str>, files: Files, open: impl FnOnce() -> Result<ModelFolder, Fault>) -> Entry {
        let look = || {
            let folder = open()?;
            let family = families::of(&folder).map_err(|error| Fault::of(&error, folder.told(&error)))?;
            let description = family.describe(name, &folder);
            let description = description.map_err(|error| Fault::of_card(&error, folder.told(&error)))?;
            let Description { card, size, notes, outline } = description;
            let offloadable = family.offloadable(&folder);
            let offloadable = offloadable.map_err(|error| Fault::of(&error, folder.told(&error)))?;
            Ok(Usable { folder, family, card: Arc::new(card), size, offloadable, notes, outline })
        };
        // A file that causes a panic must not prevent other models from being served.
        let usable = catch_unwind(AssertUnwindSafe(look));
        let usable = usable.unwrap_or_else(|_| Err("its files made latentd panic; see the log".to_owned().into()));
        Entry {
            key,
            files,
            usable,
            unloadable: OnceLock::new(),
            modules: OnceLock::new(),
            fingerprint: OnceLock::new(),
            weights_sha256: OnceLock::new(),
            has_safety_checker: OnceLock::new(),
        }
    }

    /// What was read from the files, or why the model cannot be used.
    pub fn usable(&self) -> Result<&Usable, &str> {
        match self.unloadable.get() {
            Some(reason) => Err(reason),
            None => self.usable.as_ref().map_err(|fault| fault.reason.as_str()),
        }
    }

    /// Remembers that the weights of these files cannot be loaded. The first reason is kept.
    pub fn cannot_be_loaded(&self, reason: String) {
        self.unloadable.get_or_init(|| reason);
    }

    /// Whether a load has failed in a way that [`Entry::cannot_be_loaded`] remembers.
    pub fn is_unloadable(&self) -> bool {
        self.unloadable.get().is_some()
    }

    /// Whether the files could not be read for a transient reason, such as a lack of file descriptors.
    pub fn is_unread(&self) -> bool {
        self.usable.as_ref().is_err_and(|fault| fault.is_unread)
    }

    pub fn is_embedded(&self) -> bool {
        matches!(self.files, Files::Embedded)
    }

    /// Whether this entry was made from the files of `other`, and these files have not changed since.
    pub fn is_of(&self, other: &Source) -> bool {
        match &self.files {
            Files::Embedded => false,
            Files::OnDisk { source, stamp } => source == other && *stamp == listing_stamp(other),
        }
    }

    /// Checks that the files have not changed since they were listed.
    ///
    /// # Errors
    /// The files have changed.
    pub fn check_unchanged(&self) -> Result<(), String> {
        match &self.files {
            Files::OnDisk { source, stamp } if *stamp != listing_stamp(source) => Err(CHANGED.to_owned()),
            _ => Ok(()),
        }
    }

    /// The fingerprint of the files; empty if the model cannot be used.
    pub fn fingerprint(&self) -> &str {
        let of_folder = || self.usable.as_ref().map(|usable| usable.folder.fingerprint()).unwrap_or_default();
        self.fingerprint.get_or_init(of_folder)
    }

    /// [`ModelFolder::weights_sha256`]; `None` also if the model cannot be used.
    pub fn weights_sha256(&self) -> Option<&str> {
        let of_folder = || self.usable.as_ref().ok()?.folder.weights_sha256();
        self.weights_sha256.get_or_init(of_folder).as_deref()
    }

    /// Whether the model's folder has a safety checker with its weights.
    pub fn has_safety_checker(&self) -> bool {
        let of_folder = || self.usable.as_ref().is_ok_and(|usable| SafetyChecker::is_in(&usable.folder));
        *self.has_safety_checker.get_or_init(of_folder)
    }

    /// The modules to which adapters can be added. Faults are not remembered.
    pub fn modules(&self) -> Result<&Modules, Fault> {
        let Usable { family, folder, .. } = self.usable().map_err(|reason| Fault::from(reason.to_owned()))?;
        if let Some(modules) = self.modules.get() {
            return Ok(modules);
        }
        let modules = family.modules(folder)?;
        Ok(self.modules.get_or_init(|| modules))
    }
}

/// Separates the parts of a key: the name, the digest of the files, and the device if there is one. Names do not
/// contain this character.
const SEPARATOR: char = '\n';

/// The key of a model with the current state of its files.
pub(super) fn key(name: &str, source: &Source) -> Arc<str> {
    format!("{name}{SEPARATOR}{}", fingerprint::digest(&listing_stamp(source))).into()
}

/// The key of a model on a device. The same model has another key on another device.
pub(super) fn on_device(key: &str, device: &str) -> String {
    format!("{key}{SEPARATOR}{device}")
}

/// The model's key in a key that [`on_device`] made.
pub(super) fn key_of(on_device: &str) -> &str {
    on_device.rsplit_once(SEPARATOR).map_or(on_device, |(key, _)| key)
}

/// The device in a key that [`on_device`] made.
pub(super) fn device_of(on_device: &str) -> &str {
    on_device.rsplit_once(SEPARATOR).map_or("", |(_, device)| device)
}

/// The name of the model in a key.
pub(super) fn name_of(key: &str) -> &str {
    key.split(SEPARATOR).next().unwrap_or(key)
}

pub(super) const CHANGED: &str = "its files have changed since they were listed; the server lists them again within \
                       two times models.poll_interval_s seconds, or at once after SIGHUP or POST /admin/reload";
