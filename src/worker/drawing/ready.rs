//! Prepares a claimed generation for the engine, with the current files.

use super::{Drawing, ended_early, models::Room};
use crate::{
    catalogue::{Edition, ModelLease, PrepareError},
    crash::{Attempt, blame},
    engine::{Reason, RunError},
    generation::{Problem, Work},
    ledger::Outcome,
    pipelines::Prepared,
    service::Placed,
    worker::executor::{Claimed, RunReporter, failed},
};

/// A generation that is ready for the engine.
pub(super) struct Ready {
    pub prepared: Prepared,
    pub placed: Placed,
    /// The lease of the model, the lease of the refiner if there is one, and the room: the lease of the ControlNets,
    /// the memory and the slot. All are released when this value is dropped.
    pub held: (ModelLease, Option<ModelLease>, Room),
}

impl Drawing {
    /// Loads everything that the generation needs. The error is the outcome of a generation that cannot be prepared.
    /// Files may have changed since the request was accepted: if something cannot be loaded and the folders differ from
    /// the catalogue's lists, the folders are listed again and the load is retried once. If the second load fails too,
    /// the error is retryable, because somebody is changing the files.
    pub(super) async fn made_ready(
        &self,
        claimed: &Claimed,
        work: &Work,
        tell: &RunReporter,
        attempt: Option<Attempt>,
    ) -> Result<Ready, Outcome> {
        let edition = self.catalogue.edition();
        match self.ready(claimed, work, tell, attempt).await {
            Err(Outcome::Failed(problem)) if is_of_files(&problem) && self.lists_changes(&edition).await => {
                tracing::info!(id = %claimed.id(), "files have changed since they were listed: {}", problem.message);
                self.ready(claimed, work, tell, attempt).await.map_err(|outcome| match outcome {
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
        work: &Work,
        tell: &RunReporter,
        attempt: Option<Attempt>,
    ) -> Result<Ready, Outcome> {
        let inputs = self.load_inputs(claimed, work).await?;
        let Some(placed) = self.place(&claimed.record.job) else {
            // All devices have failed, so the process is about to end and to cancel this run.
            tell.until_canceled().await;
            return Err(ended_early(RunError::Canceled(claimed.cancel.reason().unwrap_or(Reason::Lost)), work));
        };
        let held = self.load_models(claimed, work, tell, &placed).await?;
        if self.provenance.signs() {
            // The first digest of a model takes long, so it is computed while the generation runs.
            let (catalogue, job) = (self.catalogue.clone(), claimed.record.job.clone());
            drop(tokio::task::spawn_blocking(move || catalogue.digests(&job)));
        }
        let (catalogue, wanted) = (self.catalogue.clone(), claimed.record.job.clone());
        let (model, refiner) = (held.0.model().clone(), held.1.as_ref().map(|refiner| refiner.model().clone()));
        let lease = held.2.control_nets.clone();
        let prepare = move || blame(attempt, || catalogue.prepare_in(&lease, wanted, inputs, model, refiner));
        let prepared = tokio::task::spawn_blocking(prepare);
        let prepared = prepared.await.map_err(|_| failed("internal", "loading was interrupted".to_owned(), true))?;
        let prepared = prepared.map_err(|error| match error {
            PrepareError::Scheduler(error) => failed(UNSUPPORTED, error.to_string(), false),
            PrepareError::Unfit(reason) => failed(UNSUPPORTED, reason, false),
            error => {
                self.not_loaded(claimed, placed.device, &error.to_string(), |text| failed(UNAVAILABLE, text, false))
            }
        })?;
        Ok(Ready { prepared, placed, held })
    }

    /// Whether the files differ from the lists of `edition`. Lists the folders again, unless they have been listed
    /// again since `edition`.
    async fn lists_changes(&self, edition: &Edition) -> bool {
        if !self.catalogue.is_at(edition) {
            return true;
        }
        let catalogue = self.catalogue.clone();
        match tokio::task::spawn_blocking(move || catalogue.list_changes()).await {
            Ok(Ok(reloaded)) => !reloaded.is_empty(),
            _ => false,
        }
    }
}

const UNAVAILABLE: &str = "model_unavailable";
const UNSUPPORTED: &str = "unsupported_for_model";

/// Whether changed files can have caused the problem.
fn is_of_files(problem: &Problem) -> bool {
    [UNAVAILABLE, UNSUPPORTED].contains(&problem.code.as_str())
}

fn after_change(problem: Problem) -> Problem {
    let message = format!("{}; files have changed since the request was accepted", problem.message);
    Problem { message, retryable: true, ..problem }
}
