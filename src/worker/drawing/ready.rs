//! A claimed generation made ready to compute, by the files as they are now.

use super::{Drawing, models::Room};
use crate::{
    catalogue::{Edition, Lease, PrepareError},
    crash::{Attempt, blame},
    generation::{Draw, Problem},
    ledger::Outcome,
    pipelines::Prepared,
    service::Placed,
    worker::executor::{Claimed, Tell, failed},
};

/// A generation that the engine can take.
pub(super) struct Ready {
    pub prepared: Prepared,
    pub placed: Placed,
    /// Its models and its room, which nobody else gets until this is dropped.
    pub held: (Lease, Option<Lease>, Room),
}

impl Drawing {
    /// Loads all that the generation draws from, or says how the generation ends without. Files may have changed since the
    /// request was accepted: where something cannot be loaded and the folders are not as they were listed, they are listed again
    /// and it is tried once more. If that fails too, the client may try again, since somebody is at work on the files.
    pub(super) async fn made_ready(
        &self,
        claimed: &Claimed,
        draw: &Draw,
        tell: &Tell,
        attempt: Option<Attempt>,
    ) -> Result<Ready, Outcome> {
        let edition = self.catalogue.edition();
        match self.ready(claimed, draw, tell, attempt).await {
            Err(Outcome::Failed(problem)) if is_of_files(&problem) && self.lists_changes(&edition).await => {
                tracing::info!(id = %claimed.id(), "files have changed since they were listed: {}", problem.message);
                self.ready(claimed, draw, tell, attempt).await.map_err(|outcome| match outcome {
                    Outcome::Failed(problem) if is_of_files(&problem) => Outcome::Failed(after_change(problem)),
                    outcome => outcome,
                })
            }
            ready => ready,
        }
    }

    async fn ready(
        &self,
        claimed: &Claimed,
        draw: &Draw,
        tell: &Tell,
        attempt: Option<Attempt>,
    ) -> Result<Ready, Outcome> {
        let inputs = self.load_inputs(claimed, draw).await?;
        let placed = self.place(&claimed.record.job);
        let held = self.load_models(claimed, draw, tell, &placed).await?;
        let (catalogue, wanted) = (self.catalogue.clone(), claimed.record.job.clone());
        let (model, refiner) = (held.0.model().clone(), held.1.as_ref().map(|refiner| refiner.model().clone()));
        let prepared =
            tokio::task::spawn_blocking(move || blame(attempt, || catalogue.prepare(wanted, inputs, model, refiner)));
        let prepared = prepared.await.map_err(|error| failed("internal", format!("loading: {error}"), true))?;
        let prepared = prepared.map_err(|error| match error {
            PrepareError::Scheduler(error) => failed(UNSUPPORTED, error.to_string(), false),
            PrepareError::Unfit(reason) => failed(UNSUPPORTED, reason, false),
            error => failed(UNAVAILABLE, error.to_string(), false),
        })?;
        Ok(Ready { prepared, placed, held })
    }

    /// Whether files are not as they were listed in this edition. Lists the folders of models, LoRAs, words and ControlNets
    /// again, where nobody has.
    async fn lists_changes(&self, edition: &Edition) -> bool {
        if !self.catalogue.is_at(edition) {
            return true;
        }
        let catalogue = self.catalogue.clone();
        match tokio::task::spawn_blocking(move || catalogue.reload()).await {
            Ok(Ok(reloaded)) => !reloaded.is_empty(),
            _ => false,
        }
    }
}

const UNAVAILABLE: &str = "model_unavailable";
const UNSUPPORTED: &str = "unsupported_for_model";

/// Whether other files could be the end of it.
fn is_of_files(problem: &Problem) -> bool {
    [UNAVAILABLE, UNSUPPORTED].contains(&problem.code.as_str())
}

fn after_change(problem: Problem) -> Problem {
    let message = format!("{}; files have changed since the request was accepted", problem.message);
    Problem { message, retryable: true, ..problem }
}
