//! Which models there are: the embedded one, and the folders of `models.dir`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::Device;

use super::{ControlNets, LatentRgb, Model, NetworkError, Networks, card, embedded};
use crate::{
    generation::ModelCard,
    kernels::winograd,
    models::stable_diffusion::StableDiffusion,
    weights::{LoadError, ModelFolder},
};

/// The models by name. Cards are read at once, weights at first use; a folder that cannot be used stays listed with
/// the reason, and never keeps the server from starting unless it is the default.
#[derive(Debug)]
pub struct Catalogue {
    default: String,
    winograd: winograd::Use,
    entries: BTreeMap<String, Entry>,
    control_nets: ControlNets,
}

#[derive(Debug)]
struct Entry {
    folder: ModelFolder,
    card: Result<Arc<ModelCard>, String>,
    state: Mutex<State>,
    /// Held while the weights are read, so that they are read once.
    loading: Mutex<()>,
}

#[derive(Debug)]
enum State {
    Cold,
    Loading,
    Ready(Arc<Model>),
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the model {0:?} is not in the catalogue")]
    Unknown(String),
    #[error("the default model {name:?} cannot be used: {reason}")]
    Default { name: String, reason: String },
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
        entries.insert(embedded::NAME.to_owned(), Entry::new(embedded::NAME, embedded::folder()));
        if !dir.as_os_str().is_empty() {
            for (name, folder) in folders(dir)? {
                entries.insert(name.clone(), Entry::new(&name, folder));
            }
        }
        let catalogue = Catalogue {
            default: default.to_owned(),
            winograd: winograd::Use::Auto,
            entries,
            control_nets: ControlNets::default(),
        };
        let unusable = |reason: &str| CatalogueError::Default { name: default.to_owned(), reason: reason.to_owned() };
        match catalogue.entries.get(default).map(|entry| &entry.card) {
            None => Err(unusable("it is not in the catalogue")),
            Some(Err(reason)) => Err(unusable(reason)),
            Some(Ok(_)) => Ok(catalogue),
        }
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

    /// `ready`, `loading`, `cold` or `failed`, with the reason of the last.
    pub fn state(&self, name: &str) -> (&'static str, Option<String>) {
        let Some(entry) = self.entries.get(name) else { return ("failed", None) };
        if let Err(reason) = &entry.card {
            return ("failed", Some(reason.clone()));
        }
        match &*entry.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Cold => ("cold", None),
            State::Loading => ("loading", None),
            State::Ready(_) => ("ready", None),
            State::Failed(reason) => ("failed", Some(reason.clone())),
        }
    }

    /// The same models, with ControlNets beside them.
    pub fn with_control_nets(self, control_nets: ControlNets) -> Catalogue {
        Catalogue { control_nets, ..self }
    }

    pub fn control_nets(&self) -> &ControlNets {
        &self.control_nets
    }

    /// The same models, whose networks take Winograd's algorithm where this says.
    pub fn for_winograd(self, winograd: winograd::Use) -> Catalogue {
        Catalogue { winograd, ..self }
    }

    /// The model with its weights in memory; reads them if this is the first use. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The name is unknown, or the folder's files are missing, broken or not of this architecture; each call tries anew.
    pub fn load(&self, name: &str) -> Result<Arc<Model>, CatalogueError> {
        let entry = self.entries.get(name).ok_or_else(|| CatalogueError::Unknown(name.to_owned()))?;
        let failed = |reason: String| CatalogueError::Load { name: name.to_owned(), reason };
        let _turn = entry.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Ready(model) = &*entry.state.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(model.clone());
        }
        if let Err(reason) = &entry.card {
            return Err(failed(reason.clone()));
        }
        entry.become_(State::Loading);
        match read(name, &entry.folder, self.winograd) {
            Ok(model) => {
                let model = Arc::new(model);
                entry.become_(State::Ready(model.clone()));
                Ok(model)
            }
            Err(error) => {
                let reason = error.to_string();
                entry.become_(State::Failed(reason.clone()));
                Err(failed(reason))
            }
        }
    }
}

impl Entry {
    fn new(name: &str, folder: ModelFolder) -> Entry {
        let card = card::read(name, &folder).map(Arc::new).map_err(|error| error.to_string());
        Entry { folder, card, state: Mutex::new(State::Cold), loading: Mutex::new(()) }
    }

    fn become_(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
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

/// The folders of models inside `dir`. A name that is no good in a URL or a request is passed over with a warning.
fn folders(dir: &Path) -> Result<Vec<(String, ModelFolder)>, CatalogueError> {
    let unreadable = |source| CatalogueError::Folder { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !path.join("model_index.json").is_file() {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
        let Some(name) = name else {
            tracing::warn!(path = %path.display(), "passed over: a model's name is 1 to 64 letters, digits, '.', '_' and '-'");
            continue;
        };
        match ModelFolder::open(&path) {
            Ok(folder) => found.push((name.to_owned(), folder)),
            Err(error) => tracing::warn!(path = %path.display(), %error, "passed over"),
        }
    }
    Ok(found)
}

pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}
