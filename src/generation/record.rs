//! A generation as the ledger stores it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Artifact, GenerationId, Job};

/// A generation with its job and state.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: GenerationId,
    /// The tenant that owns the generation.
    pub tenant: String,
    pub job: Job,
    pub status: Status,
    /// Number of attempts. An attempt that a stopping worker gave back does not count.
    pub attempt: u32,
    /// How many processes have ended while the generation ran, and how many devices were lost while they computed it
    /// (crashes). After one or two crashes, depending on the maximum number of crashes, the generation runs alone.
    pub crash_count: u32,
    /// Whether the generation was given up, because its run has aborted a process or because `crash_count` has reached
    /// the maximum.
    pub dead: bool,
    /// Whether a client asked to cancel the generation. A running generation ends before its next step.
    pub cancel_requested: bool,
    pub created_at: OffsetDateTime,
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    /// Whether the generation is kept until its star is taken away. Only generations that succeeded have stars.
    pub starred: bool,
    /// When the record and its artifacts are erased. Only finished generations without a star have this time.
    pub expires_at: Option<OffsetDateTime>,
    /// Grows with every change; used for `ETag`s.
    pub version: i64,
}

impl Record {
    /// Whether the safety checker flagged the pictures and the policy was to block them. Nothing of such a generation
    /// is kept but this record.
    pub fn is_content_filtered(&self) -> bool {
        matches!(&self.status, Status::Failed { problem } if problem.code == Problem::CONTENT_FILTERED)
    }

    /// Why a generation with a safety policy ended: `completed` or `content_filtered`. `None` for all others.
    pub fn finish_reason(&self) -> Option<&'static str> {
        match &self.status {
            Status::Succeeded { .. } if !self.job.safety.is_off() => Some("completed"),
            _ => self.is_content_filtered().then_some(Problem::CONTENT_FILTERED),
        }
    }

    /// Whether a picture is flagged; `None` if the pictures were not checked.
    pub fn flagged(&self) -> Option<bool> {
        let Status::Succeeded { artifacts } = &self.status else { return None };
        artifacts.iter().filter_map(|artifact| artifact.flagged).reduce(|one, other| one || other)
    }
}

/// The state of a generation, with the data that exist only in this state.
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
    /// The generation was not started within its `start_timeout_s`.
    Expired,
}

impl Status {
    /// The name in the API, in SQL and in metrics.
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
    /// Whether the same request may succeed if it is sent again.
    pub retryable: bool,
}

impl Problem {
    /// The problem of a generation whose run has aborted the worker's process.
    pub fn aborted() -> Problem {
        let message =
            "the worker's process aborted while it ran this generation: its stack overflowed or memory could not be \
                       allocated"
                .to_owned();
        Problem { code: "worker_crashed".to_owned(), message, retryable: false }
    }

    /// The code of a generation that ended without its pictures, because the safety checker flagged them.
    pub const CONTENT_FILTERED: &'static str = "content_filtered";

    /// The problem of a generation of which the safety checker flagged `hits` of the pictures.
    pub fn content_filtered(hits: usize, pictures: usize) -> Problem {
        let message =
            format!("the safety checker flagged {hits} of {pictures} pictures, and this server blocks such pictures");
        Problem { code: Problem::CONTENT_FILTERED.to_owned(), message, retryable: false }
    }

    /// The problem of a generation that was given up, because `times` processes have ended during its runs.
    pub fn crashed(times: u32) -> Problem {
        let message = format!("a worker ended {times} times while it ran this generation");
        Problem { code: "worker_crashed".to_owned(), message, retryable: false }
    }

    /// The problem of a generation whose device was lost, for the reason `why`, while it computed for this generation.
    pub fn device_lost(why: &str) -> Problem {
        let message = format!("{why}; devices or workers have failed too often while they ran this generation");
        Problem { code: "device_lost".to_owned(), message, retryable: false }
    }
}
