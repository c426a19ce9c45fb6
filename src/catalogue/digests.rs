//! The SHA-256 of weights, which content credentials contain.

use super::Catalogue;
use crate::{
    generation::{Job, LoraUse},
    provenance::WeightDigests,
};

impl Catalogue {
    /// The digests of the weights that a generation uses: the digests of its model
    /// ([`ModelFolder::weights_sha256`](crate::weights::ModelFolder)) and of its LoRAs. The first call for a file reads
    /// the whole file; call this function on a blocking thread.
    pub fn digests(&self, job: &Job) -> WeightDigests {
        let model = self.entry(&job.model).and_then(|entry| entry.weights_sha256().map(str::to_owned));
        let adapters = self.adapters();
        let lora = |used: &LoraUse| adapters.lora(&used.name)?.sha256(&used.name).map(str::to_owned);
        WeightDigests { model, loras: job.work.loras().iter().map(lora).collect() }
    }
}
