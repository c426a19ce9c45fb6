//! The catalogue: which models exist (the model inside the program and the models of `models.dir`), and which models
//! are in memory.

mod adapters;
mod blocking;
mod control_nets;
mod control_shelf;
mod digests;
mod documents;
mod embedded;
mod entries;
mod entry;
mod fault;
mod fits;
mod hub;
mod listing;
mod lru;
mod model_lease;
mod motion_adapters;
mod numerics;
mod plan;
mod prepare;
mod reload;
pub mod room;
mod shelf;
mod too_large;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use rayon::prelude::*;

pub use crate::families::Plan;
use crate::{
    device::Device, generation::ModelCard, metrics::Metrics, models::prompt_tokenizers::PromptTokenizers,
    pipelines::Model,
};
pub use adapters::Adapters;
pub use control_nets::{ControlKind, ControlLease, ControlNets};
pub use embedded::folder as embedded_folder;
use entry::{Entry, on_device};
pub use fits::CompatibleModels;
use lru::Lru;
pub use model_lease::{Acquired, ModelLease, Ticket};
pub use numerics::Numerics;
pub use plan::TooLarge;
pub use prepare::PrepareError;
use reload::NameKeys;
pub use reload::{Changes, Edition, Reloaded};
use shelf::{Acquisition, Shelf, Standing};

/// The models by name. Configurations and file headers are read when models are listed, weights at first use. As many
/// models stay in memory as `models.max_bytes` allows. A model that cannot be used is listed with the reason; it
/// prevents the start of the server only if it is the default model or a model of `models.preload`.
#[derive(Debug)]
pub struct Catalogue {
    dir: PathBuf,
    /// The name of the default model.
    default: String,
    /// The devices on which networks compute: at least one, all of one kind.
    devices: Vec<Device>,
    /// The memory of the host for weights, in bytes; a model that takes more is refused.
    memory: u64,
    shelf: Arc<Shelf>,
    /// Replaced as a whole when the folders are listed again.
    listed: RwLock<Arc<Listed>>,
    /// The keys of the files that the last poll saw; `None` if the folders have been listed since that poll.
    seen: Mutex<Option<reload::Keys>>,
    /// Cached answers to the question which models can use a LoRA, a textual inversion or a ControlNet.
    fits: Mutex<fits::Known>,
    /// The tokenizers that were used last, by the keys of their models.
    tokenizers: Lru<Arc<PromptTokenizers>>,
}

/// The contents of the folders when they were last listed.
#[derive(Clone, Debug)]
struct Listed {
    models: Entries,
    /// Names of models that were listed earlier and no longer are.
    gone: BTreeSet<String>,
    /// A note for operators about `models.dir` itself, such as that this folder is one model.
    note: Option<String>,
    control_nets: Arc<ControlNets>,
    adapters: Arc<Adapters>,
}

/// The state of a model on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDevice {
    /// Whether the weights are in memory or being read.
    pub is_there: bool,
    /// Whether the model is there, or can be loaded without unloading another model.
    pub has_room: bool,
}

/// Why the catalogue cannot be opened, or a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the model {0:?} is not in the catalogue")]
    Unknown(String),
    #[error("the default model {name:?} cannot be used: {reason}")]
    Default { name: String, reason: String },
    #[error("the model {name:?} of models.preload cannot be used: {reason}")]
    Preload { name: String, reason: String },
    #[error("the folder of models {path} cannot be read: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("the model {name:?} cannot be loaded: {reason}")]
    Load { name: String, reason: String },
    #[error("{0}")]
    Other(String),
}

impl Catalogue {
    /// Lists the embedded model and the models in `dir`. A model in `dir` with the name of the embedded model replaces
    /// the embedded model. With an empty path, only the embedded model is listed.
    ///
    /// # Errors
    /// The folder cannot be read, or the default model is missing or cannot be used.
    pub fn open(dir: &Path, default: &str) -> Result<Catalogue, CatalogueError> {
        let catalogue = Catalogue::open_unchecked(dir, default)?;
        catalogue.check_default()?;
        Ok(catalogue)
    }

    /// As [`Catalogue::open`], but the default model may be missing, and it may be a model that cannot be used.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open_unchecked(dir: &Path, default: &str) -> Result<Catalogue, CatalogueError> {
        let (models, note) = models(dir, &BTreeMap::new())?;
        let shelf = Arc::new(Shelf::new());
        shelf.await_model(default);
        let listed =
            Listed { models, gone: BTreeSet::new(), note, control_nets: Arc::default(), adapters: Arc::default() };
        Ok(Catalogue {
            dir: dir.to_owned(),
            default: default.to_owned(),
            devices: vec![Device::host()],
            memory: u64::MAX,
            shelf,
            listed: RwLock::new(Arc::new(listed)),
            seen: Mutex::default(),
            fits: Mutex::default(),
            tokenizers: Lru::new(NonZeroUsize::new(warnings::MOST_TOKENIZERS).unwrap_or(NonZeroUsize::MIN)),
        })
    }

    fn check_default(&self) -> Result<(), CatalogueError> {
        let name = &self.default;
        let unusable = |reason: &str| CatalogueError::Default { name: name.clone(), reason: reason.to_owned() };
        let entry = self.entry(name).ok_or_else(|| unusable("it is not in the catalogue"))?;
        entry.usable().map(drop).map_err(unusable)
    }

    fn listed(&self) -> Arc<Listed> {
        self.listed.read().clone()
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.listed().models.get(name).cloned()
    }

    /// The fingerprint of a model's files; empty for an unknown name.
    fn fingerprint(&self, name: &str) -> String {
        self.entry(name).map_or_else(String::new, |entry| entry.fingerprint().to_owned())
    }

    /// The devices on which networks compute: at least one, all of one kind.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The state of a model on the device with this index; `None` if the model is unknown or cannot be used.
    pub fn standing_on(&self, name: &str, device: usize) -> Option<OnDevice> {
        let entry = self.entry(name)?;
        let device = self.devices.get(device)?;
        let bytes = entry.usable().ok()?.bytes_on(device);
        let standing = self.shelf.standing(&on_device(&entry.key, device.name()));
        let is_there = matches!(standing, Standing::Ready | Standing::Loading);
        Some(OnDevice { is_there, has_room: is_there || self.shelf.has_room(device.name(), bytes) })
    }

    /// Unloads the models of the device with this index, which is lost, as soon as they are not in use.
    pub fn unload_from(&self, device: usize) {
        if let Some(device) = self.devices.get(device) {
            self.shelf.lose(device.name());
        }
    }

    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The names of all models, including those that cannot be used.
    pub fn names(&self) -> Vec<String> {
        self.listed().models.keys().cloned().collect()
    }

    /// The names of models that were listed earlier and no longer are.
    pub fn gone(&self) -> Vec<String> {
        self.listed().gone.iter().cloned().collect()
    }

    /// The card of a model, with what it can do with motion adapters; `None` if the model is unknown or cannot be used.
    pub fn card(&self, name: &str) -> Option<Arc<ModelCard>> {
        let card = self.entry(name)?.usable().ok().map(|usable| usable.card.clone())?;
        Some(self.control_nets().moving(card))
    }

    /// Why a model of the catalogue cannot be used; `None` if it can be used or is unknown.
    pub fn fault(&self, name: &str) -> Option<String> {
        self.entry(name)?.usable().err().map(str::to_owned)
    }

    /// Bytes that the model's weights take in the memory of the first device, loaded or not; `None` if the model is
    /// unknown or cannot be used.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.entry(name)?.usable().ok().map(|usable| usable.bytes_on(&self.first_device()))
    }

    /// Notes for operators on how the model's files were read.
    pub fn notes(&self, name: &str) -> Vec<String> {
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let Ok(usable) = entry.usable() else { return Vec::new() };
        let named = usable.card.default_motion_adapter.as_ref();
        let unfit = named.and_then(|adapter| self.control_nets().check_motion(&usable.card, adapter).err());
        let note = unfit.map(|(_, reason)| format!("latentd.json: motion_adapter {reason}"));
        usable.notes.iter().cloned().chain(note).collect()
    }

    /// A note for operators about `models.dir` itself, such as that this folder is one model.
    pub fn note(&self) -> Option<String> {
        self.listed().note.clone()
    }

    /// Checks that both models can be in the memory of the device with this index at the same time.
    ///
    /// # Errors
    /// Together they exceed the bound of models in this memory.
    pub fn check_together(&self, device: usize, name: &str, other: &str) -> Result<(), CatalogueError> {
        let bytes = |name: &str| self.bytes(name).unwrap_or(0);
        let together = if name == other { bytes(name) } else { bytes(name).saturating_add(bytes(other)) };
        let device = self.devices.get(device).cloned().unwrap_or_else(|| self.first_device());
        let bound = self.shelf.bound_of(device.name());
        if together <= bound {
            return Ok(());
        }
        let setting = if device.has_own_memory() { "models.gpu_max_bytes" } else { "models.max_bytes" };
        let reason = format!("with {other:?} it takes {together} bytes, {setting} is {bound}");
        Err(CatalogueError::Load { name: name.to_owned(), reason })
    }

    /// `ready`, `loading`, `cold`, or `failed` with a reason: the most advanced state of the model on any device.
    pub fn state(&self, name: &str) -> (&'static str, Option<String>) {
        let Some(entry) = self.entry(name) else { return ("failed", None) };
        if let Err(reason) = entry.usable() {
            return ("failed", Some(reason.to_owned()));
        }
        let mut state = ("cold", None);
        for device in &self.devices {
            match self.shelf.standing(&on_device(&entry.key, device.name())) {
                Standing::Ready => return ("ready", None),
                Standing::Loading => state = ("loading", None),
                Standing::Failed(reason) if state.0 == "cold" => state = ("failed", Some(reason)),
                Standing::Cold | Standing::Failed(_) => {}
            }
        }
        state
    }

    /// Replaces the ControlNets.
    pub fn with_control_nets(self, control_nets: ControlNets) -> Catalogue {
        self.relisted(|listed| listed.control_nets = Arc::new(control_nets))
    }

    pub fn control_nets(&self) -> Arc<ControlNets> {
        self.listed().control_nets.clone()
    }

    /// Checks whether a LoRA can be used with a model. The error is a code and a reason.
    pub fn check_lora(&self, model: &str, lora: &str) -> Result<(), (&'static str, String)> {
        let unusable = |reason: String| ("unsupported_for_model", reason);
        let adapters = self.adapters();
        let file = adapters.find_lora(lora)?;
        let entry = self.entry(model).ok_or_else(|| unusable(format!("there is no model {model:?}")))?;
        let modules = entry.modules().map_err(|fault| unusable(fault.reason))?;
        let unfit = |(code, error)| (code, format!("cannot be used with this model: {error}"));
        adapters.check_lora(lora, file, modules).map_err(unfit)
    }

    /// The LoRAs and textual inversions.
    pub fn adapters(&self) -> Arc<Adapters> {
        self.listed().adapters.clone()
    }

    /// Replaces the LoRAs and textual inversions.
    pub fn with_adapters(self, adapters: Adapters) -> Catalogue {
        self.relisted(|listed| listed.adapters = Arc::new(adapters))
    }

    fn relisted(self, change: impl FnOnce(&mut Listed)) -> Catalogue {
        let mut listed = Listed::clone(&self.listed());
        change(&mut listed);
        Catalogue { listed: RwLock::new(Arc::new(listed)), ..self }
    }

    /// Sets the devices on which models compute: at least one, all of one kind. ControlNets and adapters are loaded for
    /// the device of their model.
    pub fn on(self, devices: Vec<Device>) -> Catalogue {
        Catalogue { devices, ..self }
    }

    /// The device for callers whose index belongs to no device.
    pub fn first_device(&self) -> Device {
        self.devices.first().cloned().unwrap_or_default()
    }

    /// Limits the memory of all loaded models together in the memory of the host to `max_bytes`; 0 means no limit. A
    /// model that is larger than this limit can still be loaded alone.
    pub fn within(self, max_bytes: u64) -> Catalogue {
        self.shelf.set_bound(if max_bytes == 0 { u64::MAX } else { max_bytes });
        self
    }

    /// Limits the memory of models and the memory of ControlNets on each device with memory of its own, as
    /// [`Catalogue::within`] does for the host. 0 means a part of the memory that is free there at the time of this
    /// call: five eighths for models, an eighth for ControlNets. The rest is for activations, LoRAs, and what the GPU's
    /// kernels and libraries allocate.
    pub fn within_own(self, models: u64, control_nets: u64) -> Catalogue {
        for device in self.devices.iter().filter(|device| device.has_own_memory()) {
            let eighth = device.own_memory().map(|memory| memory.free / 8);
            let bound = |setting, eighths| match (setting, eighth) {
                (0, Some(eighth)) => eighths * eighth,
                (0, None) => u64::MAX,
                (setting, _) => setting,
            };
            self.shelf.set_own_bound(device.name(), bound(models, 5));
            self.control_nets().set_own_bound(device, bound(control_nets, 1));
        }
        self
    }

    /// Maximum bytes that models and ControlNets together take in the memory of the host. On CPUs, these are all listed
    /// models, with a copy for each device, but at most the bound of models, or the largest model if that is larger;
    /// and all listed ControlNets, but at most their bound. With GPUs, these are the parts of all listed models that
    /// the GPUs offload.
    pub fn most_bytes(&self) -> u64 {
        if self.first_device().has_own_memory() {
            let entries = self.listed();
            let usable = || entries.models.values().filter_map(|entry| entry.usable().ok());
            let of_device = |device| usable().map(move |usable| usable.offloaded_bytes(device));
            return self.devices.iter().flat_map(of_device).fold(0, u64::saturating_add);
        }
        let (all, largest) = self.listed_bytes();
        all.min(self.shelf.bound().max(largest)).saturating_add(self.control_nets().most_bytes(&self.first_device()))
    }

    /// The bytes of all listed models, with a copy on each device, and the bytes of the largest model.
    pub fn listed_bytes(&self) -> (u64, u64) {
        let sizes: Vec<u64> = self.names().iter().filter_map(|name| self.bytes(name)).collect();
        let all = sizes.iter().fold(0u64, |all, bytes| all.saturating_add(*bytes));
        (all.saturating_mul(self.devices.len().max(1) as u64), sizes.into_iter().max().unwrap_or(0))
    }

    /// Reports model loads and the memory of weights in these metrics.
    pub fn counted_in(self, metrics: Metrics) -> Catalogue {
        self.control_nets().tell_in(&metrics);
        self.shelf.set_metrics(metrics);
        self
    }

    /// Requires that these models, in addition to the default one, are loaded before the server is ready.
    ///
    /// # Errors
    /// A model is unknown or cannot be used.
    pub fn preloading(self, names: &[String]) -> Result<Catalogue, CatalogueError> {
        for name in names {
            let unusable = |reason: String| CatalogueError::Preload { name: name.clone(), reason };
            let entry = self.entry(name).ok_or_else(|| unusable("it is not in the catalogue".to_owned()))?;
            entry.usable().map_err(|reason| unusable(reason.to_owned()))?;
            self.shelf.await_model(name);
        }
        Ok(self)
    }

    /// The models that must still be loaded before the server is ready. A model that was loaded and then unloaded is
    /// not among them.
    pub fn awaited(&self) -> Vec<String> {
        self.shelf.awaited()
    }

    /// Acquires a model on the first device: the loaded model, or a ticket for loading it. Waits while the model is
    /// being loaded or while models that must be unloaded for it are in use. Models that are not in use are unloaded
    /// first, the least recently used first; a model in use is never unloaded. Requests for the models that occupy the
    /// room overtake a request that waits for room, but only a bounded number of times.
    ///
    /// Dropping the future ends the wait.
    ///
    /// # Errors
    /// The name is unknown, the model cannot be used, or the load that this call waited for has failed.
    pub async fn acquire(&self, name: &str) -> Result<Acquired, CatalogueError> {
        self.acquire_on(0, name).await
    }

    /// Like [`Catalogue::acquire`], on the device with this index.
    ///
    /// # Errors
    /// Those of [`Catalogue::acquire`].
    pub async fn acquire_on(&self, device: usize, name: &str) -> Result<Acquired, CatalogueError> {
        self.acquire_beside(device, name, None).await
    }

    /// Like [`Catalogue::acquire_on`], for a caller that already holds a model, which stays in memory. Such callers go
    /// before all others. The held model and the new one together must fit the bound ([`Catalogue::check_together`]).
    /// Two such callers could wait for each other, so the callers must ensure that only one of them waits at a time.
    ///
    /// # Errors
    /// Those of [`Catalogue::acquire`].
    pub async fn acquire_beside(
        &self,
        device: usize,
        name: &str,
        held: Option<&ModelLease>,
    ) -> Result<Acquired, CatalogueError> {
        let entry = self.entry(name).ok_or_else(|| CatalogueError::Unknown(name.to_owned()))?;
        let failed = |reason: String| CatalogueError::Load { name: name.to_owned(), reason };
        let device = self.devices.get(device).cloned().unwrap_or_else(|| self.first_device());
        let bytes = entry.usable().map_err(|reason| failed(reason.to_owned()))?.bytes_on(&device);
        let shelf_key: Arc<str> = on_device(&entry.key, device.name()).into();
        match self.shelf.take(&shelf_key, bytes, held.map(|held| &*held.shelf_key)).await {
            Acquisition::Model(model) => Ok(Acquired::Ready(ModelLease::new(model, shelf_key, self.shelf.clone()))),
            Acquisition::ToRead(unloaded) => Ok(Acquired::Cold(Ticket {
                name: name.to_owned(),
                entry,
                device,
                shelf_key,
                shelf: self.shelf.clone(),
                unloaded,
                used: false,
            })),
            Acquisition::Failed(reason) => Err(failed(reason)),
        }
    }

    /// The model with its weights in memory, loaded if necessary. Blocks during the load, and while models that must be
    /// unloaded for it are in use.
    ///
    /// # Errors
    /// Those of [`Catalogue::acquire`] and [`Ticket::read`]. A later call tries again, unless the files are at fault.
    pub fn load(&self, name: &str) -> Result<Arc<Model>, CatalogueError> {
        let lease = match blocking::wait(self.acquire(name))? {
            Acquired::Ready(lease) => lease,
            Acquired::Cold(ticket) => ticket.read()?,
        };
        Ok(lease.model().clone())
    }
}

/// The current keys of the files that [`models`] would read.
fn keys_now(dir: &Path) -> Result<NameKeys, CatalogueError> {
    let unreadable = |source| CatalogueError::Folder { path: dir.to_owned(), source };
    let (found, _) = listing::list(dir, listing::MODEL).map_err(unreadable)?;
    let mut keys: NameKeys =
        found.iter().map(|(name, source)| (name.clone(), entry::key(name, source).to_string())).collect();
    keys.entry(embedded::NAME.to_owned()).or_insert_with(|| embedded::NAME.to_owned());
    Ok(keys)
}

/// Models by name.
type Entries = BTreeMap<String, Arc<Entry>>;

/// The models of `dir`, the embedded model, and a note about the folder. Entries of `known` are reused if their files
/// have not changed.
fn models(dir: &Path, known: &Entries) -> Result<(Entries, Option<String>), CatalogueError> {
    let unreadable = |source| CatalogueError::Folder { path: dir.to_owned(), source };
    let (found, note) = listing::list(dir, listing::MODEL).map_err(unreadable)?;
    let entry = |(name, source): (&String, &listing::Source)| {
        let same = known.get(name).filter(|entry| entry.is_of(source)).cloned();
        (name.clone(), same.unwrap_or_else(|| Arc::new(Entry::of(name, source, dir))))
    };
    let mut models: Entries = found.par_iter().map(entry).collect();
    models.entry(embedded::NAME.to_owned()).or_insert_with(|| {
        let embedded = known.get(embedded::NAME).filter(|entry| entry.is_embedded()).cloned();
        embedded.unwrap_or_else(|| Arc::new(Entry::embedded()))
    });
    Ok((models, note))
}
