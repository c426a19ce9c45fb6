//! Reads the content credentials of files, and applies the rule about requests for files without credentials.

use bytes::Bytes;

use super::{Service, ServiceError, offload::offload};
use crate::{
    generation::{FieldError, Invalid, Job},
    provenance::{Report, VerifyError},
    watermark::{self, Found},
};

impl Service {
    /// Reads and checks the content credentials of a file.
    ///
    /// # Errors
    /// The file has no format that can be verified.
    pub async fn verify(&self, file: Bytes) -> Result<Report, VerifyError> {
        let provenance = self.0.provenance.clone();
        // Small files are verified apart, too: checking signatures takes milliseconds whatever the size.
        let verified = offload(usize::MAX, move || provenance.verify(&file)).await?;
        self.0.metrics.verifications.with_label_values(&[verified.verdict.as_str()]).inc();
        Ok(verified)
    }

    /// The watermark of the picture in a file, if there is one.
    pub async fn watermark(&self, file: Bytes) -> Option<Found> {
        let owner = self.0.accept_policy.watermark_owner.clone();
        offload(usize::MAX, move || watermark::find(&file, &owner)).await
    }

    /// Refuses a request for files without content credentials, if the settings forbid such files.
    pub(super) fn check_provenance(&self, job: &Job) -> Result<(), ServiceError> {
        if job.output.provenance || self.0.accept_policy.provenance_opt_out {
            return Ok(());
        }
        let detail = "output.provenance must be true or absent: this server signs every picture (provenance.opt_out)";
        let pointer = "/output/provenance".to_owned();
        let error = FieldError { pointer, code: "invalid_value", detail: detail.to_owned() };
        Err(ServiceError::Invalid(Invalid { errors: vec![error] }))
    }
}
