//! The use of a model, and the turn to read one.

use std::sync::Arc;

use super::{CatalogueError, Entry, entry::Usable, shelf::Shelf};
use crate::{device::Device, pipelines::Model};

/// What [`Catalogue::acquire`](super::Catalogue::acquire) gives.
#[derive(Debug)]
pub enum Acquired {
    /// The model is in memory.
    Ready(Lease),
    /// There is room for the model, and the holder of this is the one who reads it.
    Cold(Ticket),
}

/// A model in use: it stays in memory for at least as long as this. To be dropped after every other handle of the model
/// that was taken from it, since then those who wait for room look again.
#[derive(Debug)]
pub struct Lease {
    model: Option<Arc<Model>>,
    /// By which the shelf knows the model on its device.
    pub(super) place: Arc<str>,
    shelf: Arc<Shelf>,
}

impl Lease {
    pub(super) fn new(model: Arc<Model>, place: Arc<str>, shelf: Arc<Shelf>) -> Lease {
        Lease { model: Some(model), place, shelf }
    }

    pub fn model(&self) -> &Arc<Model> {
        self.model.as_ref().expect("only `drop` takes the model away")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.model.take());
        self.shelf.wake();
    }
}

/// The turn to read a model. Others who want it wait for this one; dropped unused, it lets the next of them read.
#[derive(Debug)]
pub struct Ticket {
    pub(super) name: String,
    pub(super) entry: Arc<Entry>,
    pub(super) device: Device,
    pub(super) place: Arc<str>,
    pub(super) shelf: Arc<Shelf>,
    /// Models that make room.
    pub(super) unloaded: Vec<Arc<Model>>,
    pub(super) used: bool,
}

impl Ticket {
    /// Reads the model's weights into memory. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The folder's files are missing, broken or not of this architecture.
    pub fn read(mut self) -> Result<Lease, CatalogueError> {
        // First their memory is given back, and then other memory is taken.
        self.unloaded.clear();
        let read = self.entry.check_unchanged().and_then(|()| {
            self.entry.imprint();
            let model = read(&self.name, &self.entry, &self.device)?;
            self.entry.check_unchanged().map(|()| Arc::new(model))
        });
        self.used = true;
        self.shelf.put(&self.place, read.clone());
        match read {
            Ok(model) => Ok(Lease::new(model, self.place.clone(), self.shelf.clone())),
            Err(reason) => Err(CatalogueError::Load { name: self.name.clone(), reason }),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.used {
            self.unloaded.clear();
            self.shelf.give_up(&self.place);
        }
    }
}

fn read(name: &str, entry: &Entry, device: &Device) -> Result<Model, String> {
    let Usable { family, folder, .. } = entry.usable()?;
    let networks = family.load(folder, device).map_err(|error| error.to_string())?;
    Ok(Model { name: name.to_owned(), key: entry.key.clone(), family: family.name(), networks })
}
