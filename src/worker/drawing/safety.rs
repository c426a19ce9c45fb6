//! Checks the frames of a run before they become files.

use super::Drawing;
use crate::{
    generation::{Problem, SafetyPolicy},
    ledger::Outcome,
    pipelines::Frame,
    worker::executor::{Claimed, failed},
};

impl Drawing {
    /// Checks the frames as the job's policy says. Returns the frames, and for each of them whether it is flagged;
    /// `None` for frames that were not checked. The error is the outcome of a generation whose frames must not be
    /// stored, because the checker failed, or because the policy is to block and a frame is flagged or the model has no
    /// checker.
    pub(super) async fn checked(
        &self,
        claimed: &Claimed,
        frames: Vec<Frame>,
    ) -> Result<Vec<(Frame, Option<bool>)>, Outcome> {
        let (job, id) = (&claimed.record.job, claimed.id());
        let policy = job.safety;
        if policy.is_off() {
            return Ok(frames.into_iter().map(|frame| (frame, None)).collect());
        }
        let (safety, catalogue, model) = (self.safety.clone(), self.catalogue.clone(), job.model.clone());
        let check = move || {
            let flags = safety.flags(policy, &catalogue, &model, &frames);
            (frames, flags)
        };
        let checked = tokio::task::spawn_blocking(check).await;
        let (frames, flags) =
            checked.map_err(|_| failed("internal", "the safety check was interrupted".to_owned(), true))?;
        let unchecked =
            |reason: &str| failed("model_unavailable", format!("the pictures cannot be checked: {reason}"), false);
        let Some(flags) = flags.map_err(|reason| unchecked(&reason))? else {
            return match policy {
                SafetyPolicy::Block => Err(unchecked("the model has no safety checker")),
                SafetyPolicy::Flag | SafetyPolicy::Off => Ok(frames.into_iter().map(|frame| (frame, None)).collect()),
            };
        };
        let hits = flags.iter().filter(|flagged| **flagged).count();
        if hits > 0 {
            let (tenant, model, policy) = (&claimed.record.tenant, &job.model, policy.as_str());
            tracing::info!(target: "latentd::audit", %id, tenant, model, policy, hits, "pictures are flagged");
        }
        match policy {
            SafetyPolicy::Block if hits > 0 => Err(Outcome::Failed(Problem::content_filtered(hits, flags.len()))),
            _ => Ok(frames.into_iter().zip(flags.into_iter().map(Some)).collect()),
        }
    }
}
