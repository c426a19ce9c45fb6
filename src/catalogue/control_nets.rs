//! The ControlNets and the motion adapters: the embedded networks, and the networks of `controlnets.dir`.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::{
    blocking,
    control_shelf::{ControlShelf, Lease, Wanted},
    embedded,
    entry::{CHANGED, key_of, on_device},
    fault::Fault,
    listing::{self, Source},
};
use crate::{
    device::Device,
    families,
    generation::ModelCard,
    metrics::Metrics,
    models::{
        control_net::{ControlNet, ControlNetConfig},
        demand::Demand,
        motion_adapter::{MotionAdapter, MotionAdapterConfig},
    },
    weights::{ModelFolder, WeightSize},
};

/// The ControlNets and the motion adapters by name. Configurations and file headers are read when ControlNets are
/// listed, weights at first use.
#[derive(Clone, Debug, Default)]
pub struct ControlNets {
    dir: PathBuf,
    entries: BTreeMap<String, Arc<Entry>>,
    /// The networks in memory.
    shelf: ControlShelf<Network>,
}

/// Room in the memory of a device for the networks of one generation. They stay in memory until the lease is
/// dropped.
#[derive(Debug)]
pub struct ControlLease(Lease<Network>);

/// A network in memory.
#[derive(Clone, Debug)]
enum Network {
    ControlNet(Arc<ControlNet>),
    Motion(Arc<MotionAdapter>),
}

/// The configuration of a network.
#[derive(Debug)]
enum Config {
    ControlNet(Box<ControlNetConfig>),
    Motion(MotionAdapterConfig),
}

/// The kind of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    ControlNet,
    MotionAdapter,
}

#[derive(Debug)]
struct Entry {
    /// The key of the files; empty for an embedded network.
    key: String,
    /// `None` for an embedded network.
    source: Option<Source>,
    usable: Result<Usable, Fault>,
    /// Why the weights cannot be loaded, however often this is tried.
    unloadable: OnceLock<String>,
}

#[derive(Debug)]
struct Usable {
    folder: ModelFolder,
    /// The subfolder of `folder` that contains the network.
    part: String,
    config: Config,
    /// The memory that the weights take.
    size: WeightSize,
}

/// The folder of ControlNets cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("the folder {path} of controlnets.dir cannot be read: {source}")]
pub struct ControlNetsError {
    path: PathBuf,
    source: std::io::Error,
}

impl ControlNets {
    /// Lists the embedded networks, the folders in `dir` that have a `config.json`, and ControlNets in a single file
    /// `NAME.safetensors`. With an empty path, only the embedded ones are listed. A ControlNet in `dir` with the name
    /// of an embedded one replaces it. A network that cannot be used is listed with the reason.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(dir: &Path) -> Result<ControlNets, ControlNetsError> {
        ControlNets { dir: dir.to_owned(), ..ControlNets::default() }.read_again()
    }

    /// Lists the networks again. Files that have not changed are not read again.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn read_again(&self) -> Result<ControlNets, ControlNetsError> {
        let known = |name: &str, key: &str| self.entries.get(name).filter(|entry| entry.key == key).cloned();
        let mut entries = BTreeMap::new();
        for (name, part, folder) in embedded::control_nets() {
            let entry = known(name, "")
                .unwrap_or_else(|| Arc::new(Entry::new(String::new(), None, Ok((folder, part.to_owned())))));
            entries.insert(name.to_owned(), entry);
        }
        for (name, source) in self.found()? {
            let key = listing::stamp(&source);
            let entry = known(&name, &key).unwrap_or_else(|| Arc::new(Entry::of(key, &source, &self.dir)));
            entries.insert(name, entry);
        }
        let keys: BTreeSet<String> = entries.iter().map(|(name, entry)| entry.shelf_key(name)).collect();
        self.shelf.keep(|key| keys.contains(key_of(key)));
        Ok(ControlNets { dir: self.dir.clone(), entries, shelf: self.shelf.clone() })
    }

    /// Limits the memory of the networks in one memory together to `max_bytes`.
    pub fn within(self, max_bytes: u64) -> ControlNets {
        self.shelf.set_bound(max_bytes);
        self
    }

    /// Sets another limit for the memory of a device.
    pub(super) fn set_own_bound(&self, device: &Device, max_bytes: u64) {
        self.shelf.set_own_bound(device.memory(), max_bytes);
    }

    /// Reports the memory of the networks in these metrics.
    pub(super) fn tell_in(&self, metrics: &Metrics) {
        self.shelf.set_gauge(metrics.control_net_bytes.clone());
    }

    /// The bytes of all listed networks together in the memory of the device.
    pub fn listed_bytes(&self, device: &Device) -> u64 {
        let all = self.entries.values().filter_map(|entry| entry.usable().ok());
        all.map(|usable| usable.size.bytes(device.precision(), device.kernels())).fold(0, u64::saturating_add)
    }

    /// Maximum bytes that the networks take in the memory of the device.
    pub fn most_bytes(&self, device: &Device) -> u64 {
        self.listed_bytes(device).min(self.shelf.bound(device.memory()))
    }

    /// Checks that all these networks can be in the memory of the device at the same time. The error is their bytes and
    /// the bound.
    pub fn check_together<'a>(&self, names: impl Iterator<Item = &'a str>, device: &Device) -> Result<(), (u64, u64)> {
        let (bytes, bound) = (self.bytes_of(names, device), self.shelf.bound(device.memory()));
        if bytes <= bound { Ok(()) } else { Err((bytes, bound)) }
    }

    /// The bytes of all these networks together in the memory of the device, each counted once.
    pub(super) fn bytes_of<'a>(&self, names: impl Iterator<Item = &'a str>, device: &Device) -> u64 {
        self.wanted(names, device).iter().map(|wanted| wanted.bytes).fold(0, u64::saturating_add)
    }

    /// What the networks take in the memory of the device. Networks that cannot be used take nothing.
    fn wanted<'a>(&self, names: impl Iterator<Item = &'a str>, device: &Device) -> BTreeSet<Wanted> {
        let one = |name: &str| {
            let entry = self.entries.get(name)?;
            let bytes = entry.usable().ok()?.size.bytes(device.precision(), device.kernels());
            Some(Wanted { key: on_device(&entry.shelf_key(name), device.memory()), bytes })
        };
        names.filter_map(one).collect()
    }

    /// Waits for room for all these networks together in the memory of the device. Nothing is loaded yet. Generations
    /// that need other networks wait if there is no room; the networks that no generation uses are dropped first.
    pub async fn lease<'a>(&self, names: impl Iterator<Item = &'a str>, device: &Device) -> ControlLease {
        ControlLease(self.shelf.take(self.wanted(names, device)).await)
    }

    /// The networks except those whose files could not be read or whose weights could not be loaded.
    pub(super) fn without_failed_loads(&self) -> ControlNets {
        let mut others = self.clone();
        others.entries.retain(|_, entry| entry.unloadable.get().is_none() && !entry.is_unread());
        others
    }

    /// The names of the networks whose files could not be read for a transient reason, with the reason.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&str, &str)> {
        let unread = self.entries.iter().filter(|(_, entry)| entry.is_unread());
        unread.filter_map(|(name, entry)| Some((name.as_str(), entry.fault()?)))
    }

    fn found(&self) -> Result<listing::Found, ControlNetsError> {
        let unreadable = |source| ControlNetsError { path: self.dir.clone(), source };
        listing::list(&self.dir, listing::NETWORK).map(|(found, _)| found).map_err(unreadable)
    }

    /// The keys of the files of the networks, by name.
    pub(super) fn keys(&self) -> BTreeMap<String, String> {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.key.clone())).collect()
    }

    /// The value that [`ControlNets::keys`] would have if the folder were listed now.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn keys_now(&self) -> Result<BTreeMap<String, String>, ControlNetsError> {
        let embedded = embedded::control_nets().map(|(name, ..)| (name.to_owned(), String::new()));
        let found = self.found()?.into_iter().map(|(name, source)| (name, listing::stamp(&source)));
        Ok(embedded.chain(found).collect())
    }

    /// Logs the networks that cannot be used, except those that are also in `before`.
    pub(super) fn warn(&self, before: Option<&ControlNets>) {
        for (name, entry) in &self.entries {
            let known = before.and_then(|before| before.entries.get(name));
            if let Some(reason) = entry.fault().filter(|_| !known.is_some_and(|known| Arc::ptr_eq(known, entry))) {
                tracing::warn!(name, "controlnets.dir: cannot be used: {reason}");
            }
        }
    }

    /// The name of each network, and the reason if the network cannot be used.
    pub fn names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.fault()))
    }

    /// The key of the files of a network; `None` for an unknown name.
    pub(super) fn key(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(|entry| entry.key.as_str())
    }

    /// Why no model can use the network, judged by its own files.
    pub(super) fn fault(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.fault()
    }

    /// The fingerprint of the files of a network; empty if it is unknown or cannot be used.
    pub(super) fn fingerprint(&self, name: &str) -> String {
        let usable = self.entries.get(name).and_then(|entry| entry.usable().ok());
        usable.map_or_else(String::new, |usable| usable.folder.fingerprint() + &usable.part)
    }

    /// Checks whether the network fits the model. The error is a code and a reason.
    pub fn check(&self, card: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        let Some(entry) = self.entries.get(name) else {
            return Err((
                "unknown_controlnet",
                format!("{name:?} is not in the catalogue; GET /v1/controlnets lists the ControlNets"),
            ));
        };
        let usable = entry.usable().map_err(|reason| ("unsupported_for_model", format!("{name:?}: {reason}")))?;
        let Config::ControlNet(config) = &usable.config else {
            let reason = "is a motion adapter, which the field motion_adapter of a request for films takes";
            return Err(("unsupported_for_model", format!("{name:?} {reason}")));
        };
        let fits = config.unet.maps() == card.maps
            && config.unet.text_width() == card.context_width
            && config.unet.added().is_some() == (card.time_id_count > 0)
            && config.unet.in_channels == card.latents.0
            && config.scale() == card.latents.1;
        if fits {
            return Ok(());
        }
        Err(("unsupported_for_model", format!("{name:?} was not made for models like {:?}", card.name)))
    }

    /// The work and memory of one row of (h, w) latent pixels with `length` tokens of text, or `length` frames for a
    /// motion adapter; `None` if the network cannot be used.
    pub(super) fn demand(&self, name: &str, size: [usize; 2], length: usize) -> Option<Demand> {
        match &self.entries.get(name)?.usable().ok()?.config {
            Config::ControlNet(config) => Some(config.demand(size, length)),
            Config::Motion(config) => Some(config.demand(length, size)),
        }
    }

    /// The kind of a network that can be used.
    pub fn kind(&self, name: &str) -> Option<ControlKind> {
        match self.entries.get(name)?.usable().ok()?.config {
            Config::ControlNet(_) => Some(ControlKind::ControlNet),
            Config::Motion(_) => Some(ControlKind::MotionAdapter),
        }
    }

    /// The motion adapters that can be used, by name.
    pub(super) fn motion_adapters(&self) -> impl Iterator<Item = (&str, &MotionAdapterConfig)> {
        self.entries.iter().filter_map(|(name, entry)| match &entry.usable().ok()?.config {
            Config::ControlNet(_) => None,
            Config::Motion(config) => Some((name.as_str(), config)),
        })
    }

    /// [`ControlNets::load_in`] with a lease of its own, for which the thread waits.
    ///
    /// # Errors
    /// Those of [`ControlNets::load_in`].
    pub fn load(&self, name: &str, device: &Device) -> Result<Arc<ControlNet>, String> {
        let lease = blocking::wait(self.lease([name].into_iter(), device));
        self.load_in(&lease, name, device)
    }

    /// The network with its weights in the memory of the device, loaded at the first use. Blocks during the load. The
    /// lease must name the network, and must have been taken for the same device.
    ///
    /// # Errors
    /// The name is unknown, the files have changed since the lease was taken, or they are missing, damaged or of
    /// another architecture. A later call tries again, unless the files are at fault.
    pub fn load_in(&self, lease: &ControlLease, name: &str, device: &Device) -> Result<Arc<ControlNet>, String> {
        match self.load_network(lease, (name, "ControlNet"), device)? {
            Network::ControlNet(net) => Ok(net),
            Network::Motion(_) => Err(format!("{name:?} is a motion adapter and no ControlNet")),
        }
    }

    /// As [`ControlNets::load_in`], for a motion adapter.
    ///
    /// # Errors
    /// Those of [`ControlNets::load_in`].
    pub fn load_motion_in(
        &self,
        lease: &ControlLease,
        name: &str,
        device: &Device,
    ) -> Result<Arc<MotionAdapter>, String> {
        match self.load_network(lease, (name, "motion adapter"), device)? {
            Network::Motion(adapter) => Ok(adapter),
            Network::ControlNet(_) => Err(format!("{name:?} is a ControlNet and no motion adapter")),
        }
    }

    fn load_network(
        &self,
        lease: &ControlLease,
        (name, noun): (&str, &str),
        device: &Device,
    ) -> Result<Network, String> {
        let entry = self.entries.get(name).ok_or_else(|| format!("the {noun} {name:?} is not in the catalogue"))?;
        let failed = |reason: &str| format!("the {noun} {name:?} cannot be loaded: {reason}");
        let Usable { folder, part, config, .. } = entry.usable().map_err(failed)?;
        let net = lease.0.get(&on_device(&entry.shelf_key(name), device.memory()), || {
            entry.check_unchanged().map_err(failed)?;
            let loaded = match config {
                Config::ControlNet(_) => ControlNet::load(folder, part, device).map(Arc::new).map(Network::ControlNet),
                Config::Motion(_) => MotionAdapter::load(folder, part, device).map(Arc::new).map(Network::Motion),
            };
            loaded.map_err(|error| {
                let reason = error.to_string();
                if error.is_lasting() {
                    entry.unloadable.get_or_init(|| reason.clone());
                }
                failed(&reason)
            })
        });
        let net = net.unwrap_or_else(|| Err(failed("its files have changed while the generation waited for memory")));
        net.map(|net| Network::clone(&net))
    }
}

impl Entry {
    /// Opens the files that were found in `dir`, and reads their configuration and headers.
    fn of(key: String, source: &Source, dir: &Path) -> Entry {
        let part = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = match source {
            Source::Folder(path) => {
                let folder = ModelFolder::open_within(path.parent().unwrap_or(dir), &[dir, path]);
                folder.map_err(Fault::from).map(|folder| (folder, part(path)))
            }
            Source::SingleFile(path) => {
                ModelFolder::single(path, &families::checkpoints()).map_err(Fault::from).and_then(|folder| {
                    let is_model = folder.has(listing::MODEL);
                    let other = "it is a checkpoint, which belongs into the folder of models.dir";
                    if is_model { Err(other.to_owned().into()) } else { Ok((folder, part(&path.with_extension("")))) }
                })
            }
            Source::Unusable(fault) => Err(fault.clone()),
        };
        Entry::new(key, Some(source.clone()), folder)
    }

    /// Reads the configuration and the file headers of the network in the subfolder that `folder` names.
    fn new(key: String, source: Option<Source>, folder: Result<(ModelFolder, String), Fault>) -> Entry {
        let look = || -> Result<Usable, Fault> {
            let (folder, part) = folder?;
            let config = match MotionAdapterConfig::is_named_by(&folder, &part) {
                true => {
                    MotionAdapter::check(&folder, &part)?;
                    Config::Motion(MotionAdapterConfig::of(&folder, &part)?)
                }
                false => {
                    let config = ControlNetConfig::of(&folder, &part)?;
                    ControlNet::check(&folder, &part)?;
                    Config::ControlNet(Box::new(config))
                }
            };
            let size = WeightSize::read(&folder, &part, "diffusion_pytorch_model")?;
            Ok(Usable { folder, part, config, size })
        };
        let usable = catch_unwind(AssertUnwindSafe(look));
        let usable = usable.unwrap_or_else(|_| Err("its files made latentd panic; see the log".to_owned().into()));
        Entry { key, source, usable, unloadable: OnceLock::new() }
    }

    /// The key of the network's files on the shelf, without the memory that holds them.
    fn shelf_key(&self, name: &str) -> String {
        format!("{name}\n{}", self.key)
    }

    fn usable(&self) -> Result<&Usable, &str> {
        match self.unloadable.get() {
            Some(reason) => Err(reason),
            None => self.usable.as_ref().map_err(|fault| fault.reason.as_str()),
        }
    }

    /// Checks that the files have not changed since they were listed.
    ///
    /// # Errors
    /// The files have changed.
    fn check_unchanged(&self) -> Result<(), &'static str> {
        let changed = self.source.as_ref().is_some_and(|source| listing::stamp(source) != self.key);
        if changed { Err(CHANGED) } else { Ok(()) }
    }

    fn is_unread(&self) -> bool {
        self.usable.as_ref().is_err_and(|fault| fault.is_unread)
    }

    fn fault(&self) -> Option<&str> {
        self.usable().err()
    }
}
