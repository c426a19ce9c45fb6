//! What computes a kind of work.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    engine::Cancel,
    generation::{Artifact, GenerationId, Preview, Problem, Progress, Record, Work},
    ledger::{Lease, Outcome},
    service::Live,
};

/// Computes one kind of work. The worker claims a generation, hands it to the first of its executors that takes the work, and
/// writes what becomes of it; it knows nothing of the work itself.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Whether work of this kind is its own.
    fn takes(&self, work: &Work) -> bool;

    /// Computes a generation from beginning to end. The artifacts' files are stored when this returns. It ends soon after the
    /// run is told to end: see [`Tell::canceled`].
    ///
    /// # Errors
    /// How the generation ends without artifacts.
    async fn execute(&self, claimed: &Claimed, tell: &Tell) -> Result<Vec<Artifact>, Outcome>;
}

/// A generation that this process has claimed, for one attempt.
#[derive(Debug)]
pub struct Claimed {
    pub record: Record,
    pub lease: Lease,
    /// Why the run shall end, once it shall.
    pub cancel: Cancel,
    /// How often a generation is begun before it fails for good.
    pub max_attempts: u32,
}

impl Claimed {
    pub fn id(&self) -> GenerationId {
        self.record.id
    }

    /// A fault of the object store that may pass: again after 1, 2, 4 … seconds, until the attempts are spent.
    pub fn retry(&self, message: String) -> Outcome {
        let problem = Problem { code: "object_store_error".to_owned(), message, retryable: true };
        let attempt = self.record.attempt;
        if attempt >= self.max_attempts {
            return Outcome::Failed(problem);
        }
        Outcome::Retry { problem, delay: Duration::from_secs(1 << attempt.saturating_sub(1).min(6)) }
    }
}

/// Tells the watchers of one generation how its run goes, and the executor when it shall end. A cheap handle.
#[derive(Clone, Debug)]
pub struct Tell {
    live: Live,
    id: GenerationId,
}

impl Tell {
    pub(super) fn new(live: Live, id: GenerationId) -> Tell {
        Tell { live, id }
    }

    pub fn progress(&self, progress: Progress) {
        self.live.progress(self.id, progress);
    }

    pub fn preview(&self, preview: Preview) {
        self.live.preview(self.id, preview);
    }

    /// Returns as soon as the run is told to end; [`Claimed::cancel`] says why.
    pub async fn canceled(&self) {
        self.live.canceled(self.id).await;
    }
}

/// A generation that fails, with an error code of the API.
pub fn failed(code: &str, message: String, retryable: bool) -> Outcome {
    Outcome::Failed(Problem { code: code.to_owned(), message, retryable })
}
