//! Which ControlNets there are: the folders of `controlnets.dir`.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    embedded,
    listing::{self, Source},
};
use crate::{
    device::Device,
    families,
    generation::ModelCard,
    models::{
        control_net::{ControlNet, ControlNetConfig},
        demand::Demand,
    },
    weights::{LoadError, ModelFolder},
};

/// The networks by name. Configurations and heads of files are read at once, weights at first use.
#[derive(Clone, Debug, Default)]
pub struct ControlNets {
    dir: PathBuf,
    entries: BTreeMap<String, Arc<Entry>>,
    device: Device,
}

#[derive(Debug)]
struct Entry {
    /// What stands for its files.
    key: String,
    usable: Result<Usable, String>,
    loaded: Mutex<Option<Arc<ControlNet>>>,
}

#[derive(Debug)]
struct Usable {
    folder: ModelFolder,
    /// The part of the folder that the network is.
    part: String,
    config: ControlNetConfig,
}

#[derive(Debug, thiserror::Error)]
#[error("the folder {path} of controlnets.dir cannot be read: {source}")]
pub struct ControlNetsError {
    path: PathBuf,
    source: std::io::Error,
}

impl ControlNets {
    /// Lists the embedded ControlNets, the folders inside `dir` that have a `config.json`, and the ControlNets in one
    /// `NAME.safetensors`; an empty path lists the embedded ones alone, and a name of theirs in `dir` takes its place. What
    /// cannot be used stays listed with the reason.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(dir: &Path) -> Result<ControlNets, ControlNetsError> {
        ControlNets { dir: dir.to_owned(), ..ControlNets::default() }.read_again()
    }

    /// The same networks, on a device; none of them is in memory yet.
    pub fn on(self, device: Device) -> ControlNets {
        ControlNets { device, ..self }
    }

    /// The networks that there are now. What was read of files that have not changed is kept.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn read_again(&self) -> Result<ControlNets, ControlNetsError> {
        let known = |name: &str, key: &str| self.entries.get(name).filter(|entry| entry.key == key).cloned();
        let mut entries = BTreeMap::new();
        for (name, part, folder) in embedded::control_nets() {
            let entry =
                known(name, "").unwrap_or_else(|| Arc::new(Entry::new(String::new(), Ok((folder, part.to_owned())))));
            entries.insert(name.to_owned(), entry);
        }
        for (name, source) in self.found()? {
            let key = listing::stamp(&source);
            let entry = known(&name, &key).unwrap_or_else(|| Arc::new(Entry::of(key, &source, &self.dir)));
            entries.insert(name, entry);
        }
        Ok(ControlNets { dir: self.dir.clone(), entries, device: self.device.clone() })
    }

    fn found(&self) -> Result<listing::Found, ControlNetsError> {
        let unreadable = |source| ControlNetsError { path: self.dir.clone(), source };
        listing::list(&self.dir, listing::NETWORK).map(|(found, _)| found).map_err(unreadable)
    }

    /// What stands for the files of the networks, by name.
    pub(super) fn keys(&self) -> BTreeMap<String, String> {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.key.clone())).collect()
    }

    /// What [`ControlNets::keys`] would be if the folder were read now.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn keys_now(&self) -> Result<BTreeMap<String, String>, ControlNetsError> {
        let embedded = embedded::control_nets().map(|(name, ..)| (name.to_owned(), String::new()));
        let found = self.found()?.into_iter().map(|(name, source)| (name, listing::stamp(&source)));
        Ok(embedded.chain(found).collect())
    }

    /// Logs what cannot be used and was not so before.
    pub(super) fn warn(&self, before: Option<&ControlNets>) {
        for (name, entry) in &self.entries {
            let known = before.and_then(|before| before.entries.get(name));
            if let Some(reason) = entry.fault().filter(|_| !known.is_some_and(|known| Arc::ptr_eq(known, entry))) {
                tracing::warn!(name, "controlnets.dir: cannot be used: {reason}");
            }
        }
    }

    /// Each name, and why the network cannot be used if it cannot.
    pub fn names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.fault()))
    }

    /// What stands for the files of a network; `None` for an unknown name.
    pub(super) fn key(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(|entry| entry.key.as_str())
    }

    /// Why no model can use a network, by its own files.
    pub(super) fn fault(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.fault()
    }

    /// By what the files of a network are known again; empty for an unknown name.
    pub(super) fn imprint(&self, name: &str) -> String {
        let usable = self.entries.get(name).and_then(|entry| entry.usable.as_ref().ok());
        usable.map_or_else(String::new, |usable| usable.folder.imprint() + &usable.part)
    }

    /// Whether the network can steer the model; the error is a code and what is wrong.
    pub fn check(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        let Some(entry) = self.entries.get(name) else {
            return Err((
                "unknown_controlnet",
                format!("{name:?} is not in the catalogue; GET /v1/controlnets lists the ControlNets"),
            ));
        };
        let usable = entry.usable.as_ref();
        let config = &usable.map_err(|reason| ("unsupported_for_model", format!("{name:?}: {reason}")))?.config;
        let fits = config.unet.maps() == card.maps
            && config.unet.text_width() == card.context_width
            && config.unet.added().is_some() == (card.time_ids > 0)
            && config.unet.in_channels == card.latents.0
            && config.scale() == card.latents.1;
        if fits {
            return Ok(());
        }
        Err(("unsupported_for_model", format!("{name:?} was not made for models like {:?}", card.name)))
    }

    /// What one row of (h, w) latent pixels beside `tokens` of text asks of the network; `None` for one that cannot be used.
    pub(super) fn demand(&self, name: &str, size: [usize; 2], tokens: usize) -> Option<Demand> {
        let usable = self.entries.get(name)?.usable.as_ref().ok()?;
        Some(usable.config.demand(size, tokens))
    }

    /// The network with its weights in memory; reads them if this is the first use. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The name is unknown, or the folder's files are missing, broken or not of this architecture; each call tries anew.
    pub fn load(&self, name: &str) -> Result<Arc<ControlNet>, String> {
        let entry = self.entries.get(name).ok_or_else(|| format!("the ControlNet {name:?} is not in the catalogue"))?;
        // Held while the weights are read, so that they are read once.
        let mut loaded = entry.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(net) = &*loaded {
            return Ok(net.clone());
        }
        let failed = |reason: String| format!("the ControlNet {name:?} cannot be loaded: {reason}");
        let Usable { folder, part, .. } = entry.usable.as_ref().map_err(|reason| failed(reason.clone()))?;
        let net = ControlNet::load(folder, part, &self.device);
        let net = Arc::new(net.map_err(|error| failed(error.to_string()))?);
        *loaded = Some(net.clone());
        Ok(net)
    }
}

impl Entry {
    /// Of what is found inside `dir`.
    fn of(key: String, source: &Source, dir: &Path) -> Entry {
        let said = |error: LoadError| error.to_string();
        let part = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = match source {
            Source::Folder(path) => {
                let folder = ModelFolder::open_within(path.parent().unwrap_or(dir), &[dir, path]);
                folder.map_err(said).map(|folder| (folder, part(path)))
            }
            Source::SingleFile(path) => {
                ModelFolder::single(path, &families::checkpoints()).map_err(said).and_then(|folder| {
                    let is_model = folder.has(listing::MODEL);
                    let other = "it is a checkpoint, which belongs into the folder of models.dir";
                    if is_model { Err(other.to_owned()) } else { Ok((folder, part(&path.with_extension("")))) }
                })
            }
            Source::Unusable(reason) => Err(reason.clone()),
        };
        Entry::new(key, folder)
    }

    /// Reads the configuration and the heads of the files.
    fn new(key: String, folder: Result<(ModelFolder, String), String>) -> Entry {
        let look = || {
            let (folder, part) = folder?;
            let said = |error: LoadError| error.to_string();
            let config = ControlNetConfig::of(&folder, &part).map_err(said)?;
            ControlNet::check(&folder, &part).map_err(said)?;
            Ok(Usable { folder, part, config })
        };
        let usable = catch_unwind(AssertUnwindSafe(look));
        let usable = usable.unwrap_or_else(|_| Err("its files made latentd panic; see the log".to_owned()));
        Entry { key, usable, loaded: Mutex::default() }
    }

    fn fault(&self) -> Option<&str> {
        self.usable.as_ref().err().map(String::as_str)
    }
}
