//! Artifacts become durable before the ledger says so.

use std::time::Duration;

use super::{Encoded, Worker, encode, failed};
use crate::{
    diffusion::{SamplerLabel, SchedulerConfig},
    generation::{Draw, Job, Phase, Problem, Record, Work},
    ledger::{Lease, Outcome, blobs::path_of},
    pipelines::Frame,
    service::Progress,
};

impl Worker {
    /// Encodes and stores every frame of the run.
    pub(super) async fn save(&self, record: &Record, lease: &Lease, frames: Vec<Frame>) -> Outcome {
        let Work::Draw(Draw { steps, .. }) = record.job.work;
        let progress = Progress { phase: Phase::Saving, step: steps, steps, percent: 100.0, eta_s: None };
        self.live.progress(record.id, progress);

        let job = record.job.clone();
        let label = self.label(&job);
        let encode_all = move || {
            let numbered = (0..).zip(frames);
            numbered.map(|(index, frame)| encode(frame, &job, &label, index)).collect::<Result<Vec<Encoded>, _>>()
        };
        let files = match tokio::task::spawn_blocking(encode_all).await {
            Ok(Ok(files)) => files,
            Ok(Err(error)) => return failed("internal", error.to_string(), false),
            Err(error) => return failed("internal", format!("encoding the results: {error}"), true),
        };
        let mut artifacts = Vec::with_capacity(files.len());
        for encoded in files {
            if !self.leases.allows(lease) {
                return Outcome::Released;
            }
            let path = path_of(lease.id(), lease.fence(), encoded.index, encoded.format.extension());
            if let Err(error) = self.blobs.put(&path, encoded.file.clone()).await {
                return self.retry(record, format!("a result cannot be stored: {error}"));
            }
            artifacts.push(encoded.stored_at(path));
        }
        Outcome::Succeeded(artifacts)
    }

    /// What other programs call the generation's sampler; empty where its model is gone meanwhile.
    fn label(&self, job: &Job) -> SamplerLabel {
        let Work::Draw(draw) = &job.work;
        let card = self.catalogue.card(&job.model);
        let config = card.and_then(|card| SchedulerConfig::overlay(&card.scheduler_config, &draw.scheduler).ok());
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
