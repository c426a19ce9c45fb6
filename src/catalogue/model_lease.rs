//! A lease of a loaded model, and the ticket for loading one.

use std::sync::Arc;

use super::{CatalogueError, Entry, entry::Usable, shelf::Shelf};
use crate::{device::Device, pipelines::Model};

/// The result of [`Catalogue::acquire`](super::Catalogue::acquire).
#[derive(Debug)]
pub enum Acquired {
    /// The model is in memory.
    Ready(ModelLease),
    /// There is room for the model, and the holder of the ticket must load it.
    Cold(Ticket),
}

/// A model in use. It stays in memory at least as long as the lease. Drop all other handles of the model before the
/// lease: when the lease is dropped, each request that waits for room checks again whether there is room, and a model
/// with other handles still counts as in use.
#[derive(Debug)]
pub struct ModelLease {
    model: Option<Arc<Model>>,
    /// The key of the model on its device.
    pub(super) shelf_key: Arc<str>,
    shelf: Arc<Shelf>,
}

impl ModelLease {
    pub(super) fn new(model: Arc<Model>, shelf_key: Arc<str>, shelf: Arc<Shelf>) -> ModelLease {
        ModelLease { model: Some(model), shelf_key, shelf }
    }

    /// The loaded model.
    pub fn model(&self) -> &Arc<Model> {
        self.model.as_ref().expect("only `drop` takes the model away")
    }
}

impl Drop for ModelLease {
    fn drop(&mut self) {
        drop(self.model.take());
        self.shelf.wake();
    }
}

/// The turn to load a model. Other requests for the model wait for this load. If the ticket is dropped unused, the next
/// request gets the turn.
#[derive(Debug)]
pub struct Ticket {
    pub(super) name: String,
    pub(super) entry: Arc<Entry>,
    pub(super) device: Device,
    pub(super) shelf_key: Arc<str>,
    pub(super) shelf: Arc<Shelf>,
    /// Models that were unloaded to make room.
    pub(super) unloaded: Vec<Arc<Model>>,
    /// Whether the load was tried.
    pub(super) used: bool,
}

impl Ticket {
    /// Loads the model's weights into memory. Blocks during the load.
    ///
    /// # Errors
    /// The files are missing, damaged, changed since they were listed, or of another architecture.
    pub fn read(mut self) -> Result<ModelLease, CatalogueError> {
        // The memory of the unloaded models is freed before new memory is allocated.
        self.unloaded.clear();
        let read = self.load();
        self.used = true;
        self.shelf.put(&self.shelf_key, read.clone());
        match read {
            Ok(model) => Ok(ModelLease::new(model, self.shelf_key.clone(), self.shelf.clone())),
            Err(reason) => Err(CatalogueError::Load { name: self.name.clone(), reason }),
        }
    }
}

impl Ticket {
    /// Loads the model. If its weights can never be loaded, the entry remembers why.
    fn load(&self) -> Result<Arc<Model>, String> {
        let Ticket { name, entry, device, .. } = self;
        entry.check_unchanged()?;
        // Computes the fingerprint now, between two checks that the files are unchanged, so that it belongs to the
        // files that are loaded. The entry keeps it for the logs of runs.
        entry.fingerprint();
        let Usable { family, folder, .. } = entry.usable()?;
        let loaded = family.load(folder, device);
        let is_unchanged = entry.check_unchanged();
        match loaded {
            Ok(networks) => {
                is_unchanged?;
                let (name, key, device) = (name.clone(), entry.key.clone(), device.clone());
                Ok(Arc::new(Model { name, key, family: family.name(), device, networks }))
            }
            Err(error) => {
                if is_unchanged.is_ok() && error.is_lasting() {
                    entry.cannot_be_loaded(error.to_string());
                }
                Err(error.to_string())
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.used {
            self.unloaded.clear();
            self.shelf.give_up(&self.shelf_key);
        }
    }
}
