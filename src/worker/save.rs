//! Pictures become durable before the ledger says so.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Worker, failed};
use crate::{
    diffusion::{SamplerLabel, SchedulerConfig},
    generation::{Generation, Image, Phase, Problem, Record},
    imaging::{RgbImage, encode_picture},
    ledger::{Lease, Outcome, blobs::path_of},
    service::Progress,
};

impl Worker {
    /// Encodes and stores every picture of the generation.
    pub(super) async fn save(&self, record: &Record, lease: &Lease, pictures: Vec<RgbImage>) -> Outcome {
        let steps = record.generation.steps;
        let progress = Progress { phase: Phase::Saving, step: steps, steps, percent: 100.0, eta_s: None };
        self.live.progress(record.id, progress);

        let generation = record.generation.clone();
        let label = self.label(&generation);
        let encoded = tokio::task::spawn_blocking(move || encode_all(&pictures, &generation, &label)).await;
        let files = match encoded {
            Ok(Ok(files)) => files,
            Ok(Err(error)) => return failed("internal", error, false),
            Err(error) => return failed("internal", format!("encoding the pictures: {error}"), true),
        };
        let mut images = Vec::with_capacity(files.len());
        for (mut image, file) in files {
            if !self.leases.allows(lease) {
                return Outcome::Released;
            }
            image.blob = path_of(lease.id(), lease.fence(), image.index);
            if let Err(error) = self.blobs.put(&image.blob, file).await {
                return self.retry(record, format!("a picture cannot be stored: {error}"));
            }
            images.push(image);
        }
        Outcome::Succeeded(images)
    }

    /// What other programs call the generation's sampler; empty where its model is gone meanwhile.
    fn label(&self, generation: &Generation) -> SamplerLabel {
        let card = self.catalogue.card(&generation.model);
        let config = card.and_then(|card| SchedulerConfig::overlay(&card.scheduler_config, &generation.scheduler).ok());
        config.map(|config| config.label()).unwrap_or_default()
    }

    /// A fault that may pass: again after 1, 2, 4 … seconds, until the attempts are spent.
    pub(super) fn retry(&self, record: &Record, message: String) -> Outcome {
        let problem = Problem { code: "object_store_error".to_owned(), message, retryable: true };
        if record.attempt >= self.max_attempts {
            return Outcome::Failed(problem);
        }
        let delay = Duration::from_secs(1 << record.attempt.saturating_sub(1).min(6));
        Outcome::Retry { problem, delay }
    }
}

fn encode_all(
    pictures: &[RgbImage],
    generation: &Generation,
    label: &SamplerLabel,
) -> Result<Vec<(Image, Bytes)>, String> {
    let encode = |(index, picture): (usize, &RgbImage)| {
        let index = index as u32;
        let file = encode_picture(picture, generation, label, index).map_err(|error| error.to_string())?;
        let image = Image {
            index,
            width: picture.width,
            height: picture.height,
            seed: generation.seed_of(index),
            bytes: file.len() as u64,
            sha256: hex(&Sha256::digest(&file)),
            blob: String::new(),
        };
        Ok((image, Bytes::from(file)))
    };
    pictures.iter().enumerate().map(encode).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
