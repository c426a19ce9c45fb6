//! Which models there are: the embedded one, and the folders of `models.dir`; and which of them are in memory.

mod blocking;
mod lease;
pub(super) mod listing;
pub mod room;
mod shelf;
mod size;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use candle_core::Device;

use super::{Adapters, ControlNets, LatentRgb, Model, NetworkError, Networks, card, embedded};
use crate::{
    generation::ModelCard,
    kernels::winograd,
    metrics::Metrics,
    models::stable_diffusion::StableDiffusion,
    weights::{LoadError, ModelFolder, lora::Modules},
};
pub use lease::{Acquired, Lease, Ticket};
use shelf::{Shelf, Standing, Taken};

/// The models by name. Cards are read at once, weights at first use, as many models as fit their bound; a folder that
/// cannot be used stays listed with the reason, and never keeps the server from starting unless it is the default.
#[derive(Debug)]
pub struct Catalogue {
    default: String,
    winograd: winograd::Use,
    entries: BTreeMap<String, Arc<Entry>>,
    shelf: Arc<Shelf>,
    control_nets: ControlNets,
    adapters: Arc<Adapters>,
}

#[derive(Debug)]
struct Entry {
    folder: ModelFolder,
    card: Result<Arc<ModelCard>, String>,
    /// Memory that the weights take; `None` where their files cannot be used.
    bytes: Option<u64>,
    /// What adapters can stand beside, once somebody has asked.
    modules: OnceLock<Result<Modules, String>>,
    /// Of the files, as they were when the weights were first read.
    imprint: OnceLock<String>,
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
}

impl Catalogue {
    /// Lists the embedded model and the folders inside `dir` that have a `model_index.json`; a folder named as the
    /// embedded model takes its place. An empty path lists only the embedded model.
    ///
    /// # Errors
    /// The folder cannot be read, or the default model is not there or has no usable card.
    pub fn open(dir: &Path, default: &str) -> Result<Catalogue, CatalogueError> {
        let mut entries = BTreeMap::new();
        entries.insert(embedded::NAME.to_owned(), Arc::new(Entry::new(embedded::NAME, embedded::folder())));
        if !dir.as_os_str().is_empty() {
            for (name, folder) in listing::folders(dir)? {
                entries.insert(name.clone(), Arc::new(Entry::new(&name, folder)));
            }
        }
        let shelf = Arc::new(Shelf::new());
        shelf.await_model(default);
        let catalogue = Catalogue {
            default: default.to_owned(),
            winograd: winograd::Use::Auto,
            entries,
            shelf,
            control_nets: ControlNets::default(),
            adapters: Arc::default(),
        };
        let default = catalogue.default_name();
        let unusable = |reason: &str| CatalogueError::Default { name: default.to_owned(), reason: reason.to_owned() };
        match catalogue.entries.get(default).map(|entry| &entry.card) {
            None => Err(unusable("it is not in the catalogue")),
            Some(Err(reason)) => Err(unusable(reason)),
            Some(Ok(_)) => Ok(catalogue),
        }
    }

    /// By what the files of a model are known again that is in memory, or was; empty for an unknown name.
    pub(super) fn imprint(&self, name: &str) -> String {
        let entry = self.entries.get(name);
        entry.map_or_else(String::new, |entry| entry.imprint.get_or_init(|| entry.folder.imprint()).clone())
    }

    pub(super) fn winograd(&self) -> winograd::Use {
        self.winograd
    }

    pub fn default_name(&self) -> &str {
        &self.default
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The card of a model whose folder can be used.
    pub fn card(&self, name: &str) -> Option<Arc<ModelCard>> {
        self.entries.get(name)?.card.as_ref().ok().cloned()
    }

    /// Bytes of memory that the model's weights take, whether they are loaded or not; `None` where they cannot be used.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.entries.get(name)?.bytes
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

    /// `ready`, `loading`, `cold` or `failed`, with the reason of the last.
    pub fn state(&self, name: &str) -> (&'static str, Option<String>) {
        let Some(entry) = self.entries.get(name) else { return ("failed", None) };
        if let Err(reason) = &entry.card {
            return ("failed", Some(reason.clone()));
        }
        match self.shelf.standing(name) {
            Standing::Cold => ("cold", None),
            Standing::Loading => ("loading", None),
            Standing::Ready => ("ready", None),
            Standing::Failed(reason) => ("failed", Some(reason)),
        }
    }

    /// The same models, with ControlNets beside them.
    pub fn with_control_nets(self, control_nets: ControlNets) -> Catalogue {
        Catalogue { control_nets, ..self }
    }

    pub fn control_nets(&self) -> &ControlNets {
        &self.control_nets
    }

    /// Whether a LoRA can be used with a model; the error is a code and what is wrong.
    pub fn check_lora(&self, model: &str, lora: &str) -> Result<(), (&'static str, String)> {
        let unusable = |reason: String| ("unsupported_for_model", reason);
        let entry = self.entries.get(model).ok_or_else(|| unusable(format!("there is no model {model:?}")))?;
        let modules = || StableDiffusion::modules(&entry.folder).map_err(|error| error.to_string());
        let modules = entry.modules.get_or_init(modules).as_ref();
        self.adapters.check(lora, modules.map_err(|reason| unusable(reason.clone()))?)
    }

    /// What the models can be changed by.
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// The same models, beside these adapters.
    pub fn with_adapters(self, adapters: Adapters) -> Catalogue {
        Catalogue { adapters: Arc::new(adapters), ..self }
    }

    /// The same models, whose networks take Winograd's algorithm where this says.
    pub fn for_winograd(self, winograd: winograd::Use) -> Catalogue {
        Catalogue { winograd, ..self }
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
            let entry = self.entries.get(name).ok_or_else(|| unusable("it is not in the catalogue".to_owned()))?;
            entry.card.as_ref().map_err(|reason| unusable(reason.clone()))?;
            self.shelf.await_model(name);
        }
        Ok(self)
    }

    /// The models that are still to be loaded before the server is ready. One that was loaded and had to go again does not
    /// come back here.
    pub fn awaited(&self) -> Vec<String> {
        self.shelf.awaited()
    }

    /// The model with its weights in memory, or the turn to read them. Waits while somebody else reads it, and while what
    /// is in the way of it is in use. Models that nobody uses make room, the least recently used first; a model in use
    /// stays. Who waits for room is overtaken by a bounded number of users of the models that are in the way.
    ///
    /// To drop the future is to give the wait up.
    ///
    /// # Errors
    /// The name is unknown, the folder's files are missing or broken, or the read that this waited for has failed.
    pub async fn acquire(&self, name: &str) -> Result<Acquired, CatalogueError> {
        self.acquire_beside(name, None).await
    }

    /// As [`Catalogue::acquire`], for somebody who holds a model already, which stays. It is before all who hold none, and
    /// what it holds and this have to fit the bound together ([`Catalogue::check_together`]). Two that hold a model and wait
    /// for another may be waiting for each other; whoever calls this sees to it that there is one at a time.
    ///
    /// # Errors
    /// Those of [`Catalogue::acquire`].
    pub async fn acquire_beside(&self, name: &str, held: Option<&Lease>) -> Result<Acquired, CatalogueError> {
        let entry = self.entries.get(name).ok_or_else(|| CatalogueError::Unknown(name.to_owned()))?;
        let failed = |reason: String| CatalogueError::Load { name: name.to_owned(), reason };
        entry.card.as_ref().map_err(|reason| failed(reason.clone()))?;
        let bytes = match entry.bytes {
            Some(bytes) => bytes,
            // Somebody may have repaired the folder meanwhile.
            None => size::of(&entry.folder).map_err(|error| failed(error.to_string()))?,
        };
        match self.shelf.take(name, bytes, held.map(|held| held.model().name.as_str())).await {
            Taken::Model(model) => Ok(Acquired::Ready(Lease::new(model, self.shelf.clone()))),
            Taken::ToRead(unloaded) => Ok(Acquired::Cold(Ticket {
                name: name.to_owned(),
                entry: entry.clone(),
                winograd: self.winograd,
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

impl Entry {
    fn new(name: &str, folder: ModelFolder) -> Entry {
        let card = card::read(name, &folder).map(Arc::new).map_err(|error| error.to_string());
        let bytes = size::of(&folder).ok();
        Entry { folder, card, bytes, modules: OnceLock::new(), imprint: OnceLock::new() }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the decoder cannot be tried: {0}")]
    Preview(#[from] NetworkError),
}

fn read(name: &str, folder: &ModelFolder, winograd: winograd::Use) -> Result<Model, ReadError> {
    let networks = StableDiffusion::load(folder, &Device::Cpu, winograd)?;
    let channels = Networks::spec(&networks).latent_channels;
    let latent_rgb = match card::latent_rgb(folder)?.filter(|map| map.weight.len() == channels) {
        Some(map) => map,
        None => LatentRgb::fit(&networks)?,
    };
    Ok(Model { name: name.to_owned(), networks: Box::new(networks), latent_rgb })
}
