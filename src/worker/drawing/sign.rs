//! Signs encoded results with content credentials.

use std::time::Instant;

use super::encode::{Encoded, digest};
use crate::{
    generation::{GenerationId, Job, MetadataLevel},
    imaging::request_text,
    metrics::Metrics,
    provenance::{Input, Provenance, SignError, Statement, WeightDigests},
};

/// What the signatures of all results of a generation have in common.
#[derive(Clone, Debug)]
pub struct Signing {
    pub provenance: Provenance,
    pub metrics: Metrics,
    pub weights: WeightDigests,
    /// `None` for results that are made without a server.
    pub id: Option<GenerationId>,
    /// The pictures of the request.
    pub inputs: Vec<Input>,
}

/// Signs an encoded result. The file stays as it is if the server does not sign, the request wants no signature, or the
/// format has no place for a signature. Call this function on a blocking thread.
///
/// # Errors
/// The keys of the server cannot sign.
pub fn sign(encoded: Encoded, job: &Job, signing: &Signing) -> Result<Encoded, SignError> {
    let Signing { provenance, metrics, weights, id, inputs } = signing;
    if !provenance.signs() || !job.output.provenance || !encoded.format.is_signable() {
        return Ok(encoded);
    }
    let begin = Instant::now();
    let unsigned = digest(&encoded.file);
    let request = (job.output.metadata_level == MetadataLevel::Full).then(|| request_text(job, encoded.index));
    let statement = Statement {
        job,
        weights,
        id: *id,
        index: encoded.index,
        request: request.as_deref(),
        unsigned_sha256: &unsigned,
        inputs,
    };
    let file = provenance.sign(&encoded.file, &statement)?;
    metrics.sign_seconds.observe(begin.elapsed().as_secs_f64());
    Ok(Encoded { file: file.into(), unsigned_sha256: Some(unsigned), ..encoded })
}
