//! The numbers of LoRAs that a request names, looked at before it is accepted, once for each file.

use tokio::sync::Semaphore;

use super::{Service, ServiceError, offload::apart};
use crate::generation::{FieldError, Invalid, Job, Work};

/// One file at a time is read, so that however many requests name LoRAs of gigabytes, one thread waits for the disk.
static READING: Semaphore = Semaphore::const_new(1);

impl Service {
    /// Reads the LoRAs of the request that nobody has read yet, on a thread for blocking work.
    ///
    /// # Errors
    /// The first that holds numbers which leave no picture, or cannot be read.
    pub(super) async fn check_lora_numbers(&self, job: &Job) -> Result<(), ServiceError> {
        let Work::Draw(draw) = &job.work;
        let adapters = self.0.catalogue.adapters();
        for (index, used) in draw.loras.iter().enumerate() {
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
