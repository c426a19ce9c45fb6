//! Which ControlNets there are: the folders of `controlnets.dir`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::Device;

use super::{
    catalogue::listing::{is_name, without_ending},
    embedded,
};
use crate::{
    generation::ModelCard,
    models::control_net::{ControlNet, ControlNetConfig},
    weights::ModelFolder,
};

/// The networks by name. Configurations are read at once, weights at first use.
#[derive(Debug, Default)]
pub struct ControlNets {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    folder: ModelFolder,
    /// The part of the folder that the network is.
    part: String,
    config: Result<ControlNetConfig, String>,
    loaded: Mutex<Option<Arc<ControlNet>>>,
}

impl ControlNets {
    /// Lists the embedded ControlNets, the folders inside `dir` that have a `config.json`, and the ControlNets in one
    /// `NAME.safetensors`; an empty path lists the embedded ones alone, and a name of theirs in `dir` takes its place. A folder that cannot be used stays listed with the reason.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(dir: &Path) -> Result<ControlNets, (PathBuf, std::io::Error)> {
        let mut entries = BTreeMap::new();
        for (name, part, folder) in embedded::control_nets() {
            entries.insert(name.to_owned(), Entry::new(folder, part));
        }
        if dir.as_os_str().is_empty() {
            return Ok(ControlNets { entries });
        }
        let unreadable = |source| (dir.to_owned(), source);
        for entry in std::fs::read_dir(dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let single = without_ending(&path);
            let folder = single.as_ref().unwrap_or(&path);
            let name = folder.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
            // A folder goes before the file of its name.
            let is_folder = folder.join("config.json").is_file();
            let (Some(name), true) = (name, is_folder != single.is_some()) else { continue };
            match if single.is_some() { ModelFolder::single(&path) } else { ModelFolder::open(dir) } {
                Ok(folder) => drop(entries.insert(name.to_owned(), Entry::new(folder, name))),
                Err(error) => tracing::warn!(path = %path.display(), %error, "passed over"),
            }
        }
        Ok(ControlNets { entries })
    }

    /// Each name, and why the network cannot be used if it cannot.
    pub fn names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.config.as_ref().err().map(String::as_str)))
    }

    /// By what the files of a network are known again; empty for an unknown name.
    pub(super) fn imprint(&self, name: &str) -> String {
        self.entries.get(name).map_or_else(String::new, |entry| entry.folder.imprint() + &entry.part)
    }

    /// Whether the network can steer the model; the error is a code and what is wrong.
    pub fn check(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        let Some(entry) = self.entries.get(name) else {
            return Err((
                "unknown_controlnet",
                format!("{name:?} is not in the catalogue; GET /v1/controlnets lists it"),
            ));
        };
        let config =
            entry.config.as_ref().map_err(|reason| ("unsupported_for_model", format!("{name:?}: {reason}")))?;
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
        let net = ControlNet::load(&entry.folder, &entry.part, &Device::Cpu);
        let net = Arc::new(net.map_err(|error| format!("the ControlNet {name:?} cannot be loaded: {error}"))?);
        *loaded = Some(net.clone());
        Ok(net)
    }
}

impl Entry {
    fn new(folder: ModelFolder, part: &str) -> Entry {
        let config = ControlNetConfig::of(&folder, part).map_err(|error| error.to_string());
        Entry { folder, part: part.to_owned(), config, loaded: Mutex::default() }
    }
}
