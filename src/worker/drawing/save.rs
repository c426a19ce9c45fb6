//! Marks, encodes, signs and stores the artifacts of a run, before the ledger names them.

use super::{Drawing, Encoded, Signing, encode, sign};
use crate::{
    diffusion::{SamplerLabel, SchedulerConfig},
    generation::{Artifact, Phase, Progress, Work},
    ledger::{Outcome, blobs::path_of},
    pipelines::Frame,
    provenance::WeightDigests,
    worker::executor::{Claimed, RunReporter, failed},
};

impl Drawing {
    /// Checks, marks, encodes, signs and stores all frames of the run.
    pub(super) async fn save(
        &self,
        claimed: &Claimed,
        work: &Work,
        tell: &RunReporter,
        frames: Vec<Frame>,
    ) -> Result<Vec<Artifact>, Outcome> {
        let (lease, steps) = (&claimed.lease, work.steps());
        let progress = Progress { phase: Phase::Saving, step: steps, steps, percent: 100.0, eta_s: None };
        tell.progress(progress);

        let (frames, flags): (Vec<Frame>, Vec<Option<bool>>) = self.checked(claimed, frames).await?.into_iter().unzip();
        let job = claimed.record.job.clone();
        let label = self.label(&job.model, work);
        let inputs = if self.provenance.signs() { self.credited_inputs(claimed, work).await? } else { Vec::new() };
        let (provenance, metrics) = (self.provenance.clone(), self.metrics.clone());
        let mut signing =
            Signing { provenance, metrics, weights: WeightDigests::default(), id: Some(claimed.id()), inputs };
        let (catalogue, marking) = (self.catalogue.clone(), self.marking.clone());
        let encode_all = move || {
            if signing.provenance.signs() {
                signing.weights = catalogue.digests(&job);
            }
            let finished = |(index, frame)| {
                let encoded = encode(frame, &job, &label, index, &marking).map_err(|error| error.to_string())?;
                sign(encoded, &job, &signing).map_err(|error| error.to_string())
            };
            (0..).zip(frames).map(finished).collect::<Result<Vec<Encoded>, String>>()
        };
        let files = match tokio::task::spawn_blocking(encode_all).await {
            Ok(Ok(files)) => files,
            Ok(Err(error)) => return Err(failed("internal", error, false)),
            // The error of a panic would quote its message, which may contain parts of the request.
            Err(_) => return Err(failed("internal", "encoding the results was interrupted".to_owned(), true)),
        };
        let mut artifacts = Vec::with_capacity(files.len());
        for (encoded, flagged) in files.into_iter().zip(flags) {
            if !self.leases.allows(lease) {
                return Err(Outcome::Released);
            }
            let path = path_of(lease.id(), lease.fence(), encoded.index, encoded.format.extension());
            if let Err(error) = self.blobs.put(&path, encoded.file.clone()).await {
                return Err(claimed.retry(format!("a result cannot be stored: {error}")));
            }
            artifacts.push(Artifact { flagged, ..encoded.stored_at(path) });
        }
        Ok(artifacts)
    }

    /// The sampler's name in other programs; empty if the model is no longer listed.
    fn label(&self, model: &str, work: &Work) -> SamplerLabel {
        let card = self.catalogue.card(model);
        let config = card.and_then(|card| SchedulerConfig::overlay(&card.scheduler_config, work.scheduler()).ok());
        config.map(|config| config.label()).unwrap_or_default()
    }
}
