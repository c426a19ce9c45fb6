//! What the ledger knows of a generation.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Artifact, GenerationId, Job};

/// A generation and how far it got.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: GenerationId,
    /// Whose it is.
    pub tenant: String,
    pub job: Job,
    pub status: Status,
    /// How often a worker began it.
    pub attempt: u32,
    /// How often a process ended while it ran; from the first time on it runs alone.
    pub crash_count: u32,
    /// It was given up since it was there too often when a process ended.
    pub dead: bool,
    /// A client asked to cancel it; a running one ends before its next step.
    pub cancel_requested: bool,
    pub created_at: OffsetDateTime,
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    /// When record and artifacts are erased; only finished generations expire.
    pub expires_at: Option<OffsetDateTime>,
    /// Grows with every change, for `ETag`s.
    pub version: i64,
}

/// Where a generation stands. What only some states have lives inside them.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    Queued,
    Running,
    Succeeded {
        artifacts: Vec<Artifact>,
    },
    Failed {
        problem: Problem,
    },
    Canceled,
    /// It was not started before its `start_timeout_s`.
    Expired,
}

impl Status {
    /// The word of the API, the SQL and the metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Succeeded { .. } => "succeeded",
            Status::Failed { .. } => "failed",
            Status::Canceled => "canceled",
            Status::Expired => "expired",
        }
    }

    pub fn is_terminal(&self) -> bool {
        match self {
            Status::Queued | Status::Running => false,
            Status::Succeeded { .. } | Status::Failed { .. } | Status::Canceled | Status::Expired => true,
        }
    }
}

/// Why a generation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One of the API's error codes.
    pub code: String,
    pub message: String,
    /// The same request may succeed if sent again.
    pub retryable: bool,
}

impl Problem {
    /// The process aborted on the very thread that worked for it.
    pub fn aborted() -> Problem {
        let message =
            "the worker's process aborted while it ran this generation: its stack overflowed or memory could not be \
                       allocated"
                .to_owned();
        Problem { code: "worker_crashed".to_owned(), message, retryable: false }
    }

    /// It was running so many times when a process ended.
    pub fn crashed(times: u32) -> Problem {
        let message = format!("a worker ended {times} times while it ran this generation");
        Problem { code: "worker_crashed".to_owned(), message, retryable: false }
    }
}
