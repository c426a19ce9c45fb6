//! What processes leave in a shared store for each other.

use time::OffsetDateTime;

use crate::generation::{GenerationId, Preview, Progress};

use super::Lease;

/// How far a run is, for watchers in other processes.
#[derive(Clone, Debug)]
pub struct Report {
    pub lease: Lease,
    pub progress: Option<Progress>,
    /// New since the last report.
    pub previews: Vec<Preview>,
}

/// What a watcher sees of a generation from afar.
#[derive(Clone, Debug)]
pub struct Glance {
    pub id: GenerationId,
    /// Number of its last durable event.
    pub last_event: i64,
    pub is_over: bool,
    /// Of the running attempt.
    pub progress: Option<Progress>,
    /// Artifact and step of its previews.
    pub previews: Vec<(u32, u32)>,
}

/// What another process should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// There is something to claim.
    Queued,
    /// A worker was told to take no more work, or to take work again.
    Orders,
    /// A generation has a new event or new progress.
    Changed(GenerationId),
    /// A running generation is to be canceled.
    Canceled(GenerationId),
}

/// A sign of life.
#[derive(Clone, Debug)]
pub struct Beat {
    pub worker: String,
    pub version: String,
    pub models: Vec<String>,
    /// Generations in hand.
    pub running: u32,
    /// Units of [`Acceptance::cost`](super::Acceptance::cost) a second, lately; `None` before the first has ended.
    pub speed: Option<f64>,
}

/// A worker as the operator sees it.
#[derive(Clone, Debug)]
pub struct WorkerRecord {
    pub beat: Beat,
    pub started_at: OffsetDateTime,
    pub beaten_at: OffsetDateTime,
    pub draining: bool,
}
