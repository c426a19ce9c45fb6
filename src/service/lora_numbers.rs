//! Checks the weights of the LoRAs in a request before the request is accepted. Each file is checked only once.

use tokio::sync::Semaphore;

use super::{Service, ServiceError, offload::apart};
use crate::generation::{FieldError, Invalid, Job};

/// One file is read at a time, so that only one thread waits for the disk, however many requests name large LoRAs.
static READING: Semaphore = Semaphore::const_new(1);

impl Service {
    /// Checks the LoRAs of the request. Files that were not checked before are read on a thread for blocking work.
    ///
    /// # Errors
    /// The first LoRA that cannot be read or has numbers that would destroy every picture.
    pub(super) async fn check_lora_numbers(&self, job: &Job) -> Result<(), ServiceError> {
        let adapters = self.0.catalogue.adapters();
        for (index, used) in job.work.loras().iter().enumerate() {
            let name = &used.name;
            let checked = match adapters.has_known_numbers(name) {
                true => adapters.check_numbers(name),
                false => {
                    let turn = READING.acquire().await.expect("the semaphore is never closed");
                    let (adapters, name) = (adapters.clone(), name.clone());
                    apart(move || {
                        let _turn = turn;
                        adapters.check_numbers(&name)
                    })
                    .await
                }
            };
            checked.map_err(|(code, reason)| {
                let pointer = format!("/loras/{index}/name");
                let detail = format!("names the LoRA {name:?}, which cannot be used: {reason}");
                ServiceError::Invalid(Invalid { errors: vec![FieldError { pointer, code, detail }] })
            })?;
        }
        Ok(())
    }
}
