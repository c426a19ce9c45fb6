//! Models that are refused because their weights exceed the memory.

use super::{Catalogue, CatalogueError, Entries};

impl Catalogue {
    /// Refuses models whose weights take more than `bytes` bytes in the memory of the host, now and whenever the
    /// folders are listed again: loading them would exhaust the memory, and the system would end the process. Weights
    /// on devices with memory of their own do not count.
    ///
    /// # Errors
    /// The default model is refused.
    pub fn in_memory(self, bytes: u64) -> Result<Catalogue, CatalogueError> {
        let catalogue = Catalogue { memory: bytes, ..self };
        catalogue.refuse_too_large(&catalogue.listed().models);
        catalogue.check_default()?;
        Ok(catalogue)
    }

    /// Refuses the models that are too large; see [`Catalogue::in_memory`].
    pub(super) fn refuse_too_large(&self, models: &Entries) {
        let device = self.first_device();
        if device.has_own_memory() {
            return;
        }
        for entry in models.values() {
            let bytes = entry.usable().map_or(0, |usable| usable.bytes_on(&device));
            if bytes > self.memory {
                entry.cannot_be_loaded(format!(
                    "its weights take {} MB of memory, but there are only {} MB for weights",
                    bytes.div_ceil(1_000_000),
                    self.memory / 1_000_000
                ));
            }
        }
    }
}
