//! Applies the safety policy to a request before it is accepted.

use super::{Caller, Service, ServiceError, offload::offload};
use crate::generation::{FieldError, Invalid, Job, SafetyPolicy, Warning, WorkKind};

impl Service {
    /// Gives the job the policy for its pictures. With the policy `block`, the job gets no previews, because a preview
    /// is not checked. Returns the warning about this.
    ///
    /// # Errors
    /// A prompt contains a refused word or phrase, or the policy is `block` and the pictures of the model cannot be
    /// checked.
    pub(super) async fn settle_safety(&self, caller: &Caller, job: &mut Job) -> Result<Option<Warning>, ServiceError> {
        let safety = &self.0.safety;
        let key = caller.key.as_deref();
        let of_key = key.and_then(|key| key.terms.safety);
        let is_embedded = self.0.catalogue.is_embedded(&job.model);
        let refused_prompt = match safety.compares_meanings(is_embedded) {
            false => safety.refused_prompt(of_key, is_embedded, &job.work),
            true => {
                let (safety, work) = (safety.clone(), job.work.clone());
                offload(usize::MAX, move || safety.refused_prompt(of_key, is_embedded, &work)).await
            }
        };
        if let Some(field) = refused_prompt {
            let (tenant, key) = (&*caller.tenant, key.map(|key| &*key.id));
            tracing::info!(target: "latentd::audit", tenant, key, model = job.model, field, "a prompt is refused");
            let detail = "contains a word or a phrase that this server refuses";
            return Err(refused(FieldError::at(&[field], FieldError::PROMPT_BLOCKED, detail)));
        }
        // The safety checker looks at pictures alone.
        if job.work.kind() == WorkKind::Sound {
            return Ok(None);
        }
        job.safety = safety.policy(of_key);
        if job.safety != SafetyPolicy::Block {
            return Ok(None);
        }
        if !safety.can_check(&self.0.catalogue, &job.model) {
            let detail = format!(
                "{:?} cannot be used: flagged pictures are blocked, and the model has no safety checker; the operator \
                 can set safety.checker",
                job.model
            );
            return Err(refused(FieldError { pointer: "/model".to_owned(), code: "unsupported_for_model", detail }));
        }
        if std::mem::take(&mut job.previews) == 0 {
            return Ok(None);
        }
        let detail = "previews are not shown, because flagged pictures are blocked and previews are not checked";
        Ok(Some(Warning::new("previews_withheld", "/previews", detail.to_owned())))
    }
}

fn refused(error: FieldError) -> ServiceError {
    ServiceError::Invalid(Invalid { errors: vec![error] })
}
