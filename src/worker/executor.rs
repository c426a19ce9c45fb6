//! The interface between the worker and its executors, each of which computes one or more kinds of work.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::stages::Stages;
use crate::{
    engine::Cancel,
    generation::{Artifact, GenerationId, Preview, Problem, Progress, Record, TraceContext, Work},
    ledger::{Lease, Outcome},
    service::Live,
};

/// Computes one or more kinds of work. The worker claims a generation, passes it to the first executor that takes the
/// work, and writes the outcome; the worker knows nothing about the work itself.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Whether this executor computes work of this kind.
    fn takes(&self, work: &Work) -> bool;

    /// Computes a generation, stores the files of its artifacts, and returns the artifacts. If the run is canceled,
    /// this function returns soon after the cancel; see [`RunReporter::until_canceled`].
    ///
    /// # Errors
    /// A generation without artifacts: the error says how it ended, for example that it was canceled.
    async fn execute(&self, claimed: &Claimed, tell: &RunReporter) -> Result<Vec<Artifact>, Outcome>;
}

/// A generation that this process has claimed, for one attempt.
#[derive(Debug)]
pub struct Claimed {
    pub record: Record,
    pub lease: Lease,
    /// Says whether and why the run must end.
    pub cancel: Cancel,
    /// Maximum number of attempts of a generation.
    pub max_attempts: u32,
    /// Number of crashes at which a generation is given up.
    pub max_crashes: u32,
    /// The span of this attempt.
    pub trace: TraceContext,
}

impl Claimed {
    pub fn id(&self) -> GenerationId {
        self.record.id
    }

    /// The outcome after an error of the blob store that may be temporary: a retry after 1, 2, 4, … at most 64 seconds,
    /// or a failure after the last attempt.
    pub fn retry(&self, message: String) -> Outcome {
        let problem = Problem { code: "object_store_error".to_owned(), message, retryable: true };
        let attempt = self.record.attempt;
        if attempt >= self.max_attempts {
            return Outcome::Failed(problem);
        }
        Outcome::Retry { problem, delay: Duration::from_secs(1 << attempt.saturating_sub(1).min(6)) }
    }

    /// The outcome after the device of the run was lost, for the reason `why`, while it worked for this generation.
    pub fn device_lost(&self, why: &str) -> Outcome {
        Outcome::DeviceLost { problem: Problem::device_lost(why), max_crashes: self.max_crashes }
    }
}

/// Reports the progress of one run to the watchers of its generation, and tells the executor when the run is canceled.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct RunReporter {
    live: Live,
    id: GenerationId,
    stages: Arc<Stages>,
}

impl RunReporter {
    pub(super) fn new(live: Live, id: GenerationId, stages: Stages) -> RunReporter {
        RunReporter { live, id, stages: Arc::new(stages) }
    }

    pub fn progress(&self, progress: Progress) {
        self.stages.enter(progress.phase);
        self.live.progress(self.id, progress);
    }

    pub fn preview(&self, preview: Preview) {
        self.live.preview(self.id, preview);
    }

    /// Returns when the run is canceled; [`Claimed::cancel`] has the reason.
    pub async fn until_canceled(&self) {
        self.live.until_canceled(self.id).await;
    }
}

/// The outcome of a failed generation. `code` is an error code of the API.
pub fn failed(code: &str, message: String, retryable: bool) -> Outcome {
    Outcome::Failed(Problem { code: code.to_owned(), message, retryable })
}
