//! Signs encoded results with content credentials.

use std::time::Instant;

use super::encode::{Encoded, digest};
use crate::{
    diffusion::SamplerLabel,
    generation::{GenerationId, Job},
    imaging::{Metadata, metadata_of},
    metrics::Metrics,
    provenance::{Input, Provenance, SignError, Statement, WeightDigests},
};

/// What the signatures of all results of a generation have in common.
#[derive(Clone, Debug)]
pub struct Signing {
    pub provenance: Provenance,
    pub metrics: Metrics,
    pub weights: WeightDigests,
    /// `None` for pictures that are drawn without a server.
    pub id: Option<GenerationId>,
    /// The pictures of the request.
    pub inputs: Vec<Input>,
}

/// Signs an encoded result. The file stays as it is if the server does not sign or the request wants no signature.
/// `label` is the sampler's name in other programs. Call this function on a blocking thread.
///
/// # Errors
/// The keys of the server cannot sign.
pub fn sign(encoded: Encoded, job: &Job, label: &SamplerLabel, signing: &Signing) -> Result<Encoded, SignError> {
    let Signing { provenance, metrics, weights, id, inputs } = signing;
    if !provenance.signs() || !job.output.provenance {
        return Ok(encoded);
    }
    let begin = Instant::now();
    let unsigned = digest(&encoded.file);
    let metadata = metadata_of(job, label, encoded.index);
    let request = match &metadata {
        Metadata::Full { request, .. } => Some(request.as_str()),
        Metadata::Seed(_) | Metadata::None => None,
    };
    let statement =
        Statement { job, weights, id: *id, index: encoded.index, request, unsigned_sha256: &unsigned, inputs };
    let file = provenance.sign(&encoded.file, &statement)?;
    metrics.sign_seconds.observe(begin.elapsed().as_secs_f64());
    Ok(Encoded { file: file.into(), unsigned_sha256: Some(unsigned), ..encoded })
}
