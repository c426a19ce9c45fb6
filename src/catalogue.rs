//! Which models there are: the embedded one, and those of `models.dir`; and which of them are in memory.

mod adapters;
mod blocking;
mod control_nets;
mod embedded;
mod entry;
mod fits;
mod hub;
mod lease;
mod listing;
mod numerics;
mod plan;
mod prepare;
mod reload;
pub mod room;
mod shelf;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rayon::prelude::*;

pub use crate::families::Plan;
use crate::{device::Device, generation::ModelCard, metrics::Metrics, pipelines::Model};
pub use adapters::Adapters;
pub use control_nets::ControlNets;
use entry::{Entry, on_device};
pub use fits::Users;
pub use lease::{Acquired, Lease, Ticket};
pub use numerics::Numerics;
pub use prepare::PrepareError;
use reload::NameKeys;
pub use reload::{Changes, Edition, Reloaded};
use shelf::{Shelf, Standing, Taken};

/// The models by name. Cards and the heads of files are read at once, weights at first use, as many models as fit their
/// bound; what cannot be used stays listed with the reason, and never keeps the server from starting unless it is the
/// default.
#[derive(Debug)]
pub struct Catalogue {
    dir: PathBuf,
    default: String,
    /// Where its networks compute, one or more of a kind.
    devices: Vec<Device>,
    shelf: Arc<Shelf>,
    /// Replaced as a whole when the folders are read again.
    listed: RwLock<Arc<Listed>>,
    /// How the files were at the last look, where that was not when they were read.
    seen: Mutex<Option<reload::Keys>>,
    fits: Mutex<fits::Known>,
}

/// What the folders held when they were last read.
#[derive(Clone, Debug)]
struct Listed {
    models: Entries,
    /// Names that were listed once and are no longer.
    gone: BTreeSet<String>,
    /// What people should know of `models.dir` itself.
    note: Option<String>,
    control_nets: Arc<ControlNets>,
    adapters: Arc<Adapters>,
}

/// How a model stands on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDevice {
    /// Its weights are in memory, or being read.
    pub is_there: bool,
    /// Nothing has to leave memory for it.
    pub has_room: bool,
}

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
    /// Lists the embedded model and those inside `dir`; one named as the embedded model takes its place. An empty path lists
    /// only the embedded model.
    ///
    /// # Errors
    /// The folder cannot be read, or the default model is not there or cannot be used.
    pub fn open(dir: &Path, default: &str) -> Result<Catalogue, CatalogueError> {
        let (models, note) = models(dir, &BTreeMap::new())?;
        let shelf = Arc::new(Shelf::new());
        shelf.await_model(default);
        let listed =
            Listed { models, gone: BTreeSet::new(), note, control_nets: Arc::default(), adapters: Arc::default() };
        let catalogue = Catalogue {
            dir: dir.to_owned(),
            default: default.to_owned(),
            devices: vec![Device::host()],
            shelf,
            listed: RwLock::new(Arc::new(listed)),
            seen: Mutex::default(),
            fits: Mutex::default(),
        };
        let unusable = |reason: &str| CatalogueError::Default { name: default.to_owned(), reason: reason.to_owned() };
        match catalogue.entry(default) {
            None => Err(unusable("it is not in the catalogue")),
            Some(entry) => entry.usable().map(drop).map_err(unusable).map(|()| catalogue),
        }
    }

    fn listed(&self) -> Arc<Listed> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.listed().models.get(name).cloned()
    }

    /// By what the files of a model are known again that is in memory, or was; empty for an unknown name.
    fn imprint(&self, name: &str) -> String {
        self.entry(name).map_or_else(String::new, |entry| entry.imprint().to_owned())
    }

    /// Where its networks compute, one or more of a kind.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// How a usable model stands on a device, by its index; `None` for an unknown name.
    pub fn standing_on(&self, name: &str, device: usize) -> Option<OnDevice> {
        let entry = self.entry(name)?;
        let (bytes, device) = (entry.usable().ok()?.bytes, self.devices.get(device)?);
        let standing = self.shelf.standing(&on_device(&entry.key, device.name()));
        let is_there = matches!(standing, Standing::Ready | Standing::Loading);
        Some(OnDevice { is_there, has_room: is_there || self.shelf.has_room(bytes) })
    }

    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The names of all models, of those too that cannot be used.
    pub fn names(&self) -> Vec<String> {
        self.listed().models.keys().cloned().collect()
    }

    /// The names of models that were listed once and are no longer.
    pub fn gone(&self) -> Vec<String> {
        self.listed().gone.iter().cloned().collect()
    }

    /// The card of a model that can be used.
    pub fn card(&self, name: &str) -> Option<Arc<ModelCard>> {
        self.entry(name)?.usable().ok().map(|usable| usable.card.clone())
    }

    /// Why a model of the catalogue cannot be used; `None` for one that can, and for an unknown name.
    pub fn fault(&self, name: &str) -> Option<String> {
        self.entry(name)?.usable().err().map(str::to_owned)
    }

    /// Bytes of memory that the model's weights take, whether they are loaded or not; `None` where they cannot be used.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.entry(name)?.usable().ok().map(|usable| usable.bytes)
    }

    /// What people should know of how the model's files were read.
    pub fn notes(&self, name: &str) -> Vec<String> {
        self.entry(name).and_then(|entry| Some(entry.usable().ok()?.notes.clone())).unwrap_or_default()
    }

    /// What people should know of `models.dir` itself.
    pub fn note(&self) -> Option<String> {
        self.listed().note.clone()
    }

    /// Whether both models can be in memory at the same time.
    ///
    /// # Errors
    /// They take more together than the bound allows.
    pub fn check_together(&self, name: &str, other: &str) -> Result<(), CatalogueError> {
        let bytes = |name: &str| self.bytes(name).unwrap_or(0);
        let together = if name == other { bytes(name) } else { bytes(name).saturating_add(bytes(other)) };
        let bound = self.shelf.bound();
        if together <= bound {
            return Ok(());
        }
        let reason = format!("with {other:?} it takes {together} bytes, models.max_bytes is {bound}");
        Err(CatalogueError::Load { name: name.to_owned(), reason })
    }

    /// `ready`, `loading`, `cold` or `failed`, with the reason of the last: how the model stands on the device where it is
    /// furthest.
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

    /// The same models, with ControlNets beside them.
    pub fn with_control_nets(self, control_nets: ControlNets) -> Catalogue {
        let control_nets = control_nets.on(self.first_device());
        self.relisted(|listed| listed.control_nets = Arc::new(control_nets))
    }

    pub fn control_nets(&self) -> Arc<ControlNets> {
        self.listed().control_nets.clone()
    }

    /// Whether a LoRA can be used with a model; the error is a code and what is wrong.
    pub fn check_lora(&self, model: &str, lora: &str) -> Result<(), (&'static str, String)> {
        let unusable = |reason: String| ("unsupported_for_model", reason);
        let adapters = self.adapters();
        let file = adapters.find_lora(lora)?;
        let entry = self.entry(model).ok_or_else(|| unusable(format!("there is no model {model:?}")))?;
        let modules = entry.modules().map_err(|reason| unusable(reason.to_owned()))?;
        let unfit = |(code, error)| (code, format!("cannot be used with this model: {error}"));
        adapters.check_lora(lora, file, modules).map_err(unfit)
    }

    /// What the models can be changed by.
    pub fn adapters(&self) -> Arc<Adapters> {
        self.listed().adapters.clone()
    }

    /// The same models, beside these adapters.
    pub fn with_adapters(self, adapters: Adapters) -> Catalogue {
        self.relisted(|listed| listed.adapters = Arc::new(adapters))
    }

    fn relisted(self, change: impl FnOnce(&mut Listed)) -> Catalogue {
        let mut listed = Listed::clone(&self.listed());
        change(&mut listed);
        Catalogue { listed: RwLock::new(Arc::new(listed)), ..self }
    }

    /// The same models, and the ControlNets beside them, whose networks compute there: on one or more devices of a kind.
    pub fn on(self, devices: Vec<Device>) -> Catalogue {
        let control_nets = ControlNets::clone(&self.control_nets());
        Catalogue { devices, ..self }.with_control_nets(control_nets)
    }

    /// Where ControlNets and adapters are: they are small, and devices that share their memory share these.
    fn first_device(&self) -> Device {
        self.devices.first().cloned().unwrap_or_default()
    }

    /// The same models, of which so many are in memory at a time that they take at most so many bytes, or one that alone
    /// takes more. 0 is no bound.
    pub fn within(self, max_bytes: u64) -> Catalogue {
        self.shelf.set_bound(if max_bytes == 0 { u64::MAX } else { max_bytes });
        self
    }

    /// The same models, whose loads are counted there.
    pub fn counted_in(self, metrics: Metrics) -> Catalogue {
        self.shelf.set_metrics(metrics);
        self
    }

    /// The same models, of which these, beside the default, are to be loaded before the server is ready.
    ///
    /// # Errors
    /// A name is unknown, or its folder has no usable card.
    pub fn preloading(self, names: &[String]) -> Result<Catalogue, CatalogueError> {
        for name in names {
            let unusable = |reason: String| CatalogueError::Preload { name: name.clone(), reason };
            let entry = self.entry(name).ok_or_else(|| unusable("it is not in the catalogue".to_owned()))?;
            entry.usable().map_err(|reason| unusable(reason.to_owned()))?;
            self.shelf.await_model(name);
        }
        Ok(self)
    }

    /// The models that are still to be loaded before the server is ready. One that was loaded and had to go again does not
    /// come back here.
    pub fn awaited(&self) -> Vec<String> {
        self.shelf.awaited()
    }

    /// The model with its weights in the memory of the first device, or the turn to read them. Waits while somebody else reads it, and while what
    /// is in the way of it is in use. Models that nobody uses make room, the least recently used first; a model in use
    /// stays. Who waits for room is overtaken by a bounded number of users of the models that are in the way.
    ///
    /// To drop the future is to give the wait up.
    ///
    /// # Errors
    /// The name is unknown, the folder's files are missing or broken, or the read that this waited for has failed.
    pub async fn acquire(&self, name: &str) -> Result<Acquired, CatalogueError> {
        self.acquire_on(0, name).await
    }

    /// As [`Catalogue::acquire`], on the device of this index.
    ///
    /// # Errors
    /// Those of [`Catalogue::acquire`].
    pub async fn acquire_on(&self, device: usize, name: &str) -> Result<Acquired, CatalogueError> {
        self.acquire_beside(device, name, None).await
    }

    /// As [`Catalogue::acquire_on`], for somebody who holds a model already, which stays. It is before all who hold none, and
    /// what it holds and this have to fit the bound together ([`Catalogue::check_together`]). Two that hold a model and wait
    /// for another may be waiting for each other; whoever calls this sees to it that there is one at a time.
    ///
    /// # Errors
    /// Those of [`Catalogue::acquire`].
    pub async fn acquire_beside(
        &self,
        device: usize,
        name: &str,
        held: Option<&Lease>,
    ) -> Result<Acquired, CatalogueError> {
        let entry = self.entry(name).ok_or_else(|| CatalogueError::Unknown(name.to_owned()))?;
        let failed = |reason: String| CatalogueError::Load { name: name.to_owned(), reason };
        let bytes = entry.usable().map_err(|reason| failed(reason.to_owned()))?.bytes;
        let device = self.devices.get(device).cloned().unwrap_or_else(|| self.first_device());
        let place: Arc<str> = on_device(&entry.key, device.name()).into();
        match self.shelf.take(&place, bytes, held.map(|held| &*held.place)).await {
            Taken::Model(model) => Ok(Acquired::Ready(Lease::new(model, place, self.shelf.clone()))),
            Taken::ToRead(unloaded) => Ok(Acquired::Cold(Ticket {
                name: name.to_owned(),
                entry,
                device,
                place,
                shelf: self.shelf.clone(),
                unloaded,
                used: false,
            })),
            Taken::Failed(reason) => Err(failed(reason)),
        }
    }

    /// The model with its weights in memory; reads them if they are not there. Blocks for as long as that takes, and
    /// for as long as others use what is in the way.
    ///
    /// # Errors
    /// As those of [`Catalogue::acquire`] and [`Ticket::read`]; each call tries anew.
    pub fn load(&self, name: &str) -> Result<Arc<Model>, CatalogueError> {
        let lease = match blocking::wait(self.acquire(name))? {
            Acquired::Ready(lease) => lease,
            Acquired::Cold(ticket) => ticket.read()?,
        };
        Ok(lease.model().clone())
    }
}

/// What stands for the files that [`models`] would read now.
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

/// The models of `dir` beside the embedded one, and a note on the folder. What `known` has of the same files is not read again.
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
