//! The types that processes exchange through a shared store.

use time::OffsetDateTime;

use crate::generation::{GenerationId, OwnerChange, Preview, Progress};

use super::Lease;

/// The progress of a run, for watchers in other processes.
#[derive(Clone, Debug)]
pub struct Report {
    pub lease: Lease,
    pub progress: Option<Progress>,
    /// Previews since the last report.
    pub previews: Vec<Preview>,
}

/// The state of a generation as watchers in other processes see it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub id: GenerationId,
    /// Number of the last durable event.
    pub last_event: i64,
    pub is_over: bool,
    /// Progress of the running attempt.
    pub progress: Option<Progress>,
    /// Artifact and step of each preview.
    pub previews: Vec<(u32, u32)>,
}

/// A hint to other processes about what to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// There are generations to claim.
    Queued,
    /// An operator has asked a worker to take no more work, or to take work again.
    DrainChanged,
    /// An API key was revoked or rotated.
    KeysChanged,
    /// A generation has a new event or new progress.
    Changed(GenerationId),
    /// A running generation is to be canceled.
    Canceled(GenerationId),
    /// A client has changed this finished generation of the tenant with this `tenant_number`.
    ChangedByOwner(OwnerChange, GenerationId, u64),
}

/// A worker's heartbeat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub worker: String,
    pub version: String,
    pub models: Vec<String>,
    /// Generations that the worker is running.
    pub running: u32,
    /// Recent work per second, in units of [`Acceptance::cost`](super::Acceptance::cost); `None` until a run has ended.
    pub speed: Option<f64>,
}

/// A worker as the operator sees it.
#[derive(Clone, Debug)]
pub struct WorkerRecord {
    pub heartbeat: Heartbeat,
    pub started_at: OffsetDateTime,
    pub beaten_at: OffsetDateTime,
    pub draining: bool,
}
