//! Bounds the memory that the bodies of all requests take together.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::error::ApiError;
use crate::{config::Http, kernels::arena};

/// The bounds of request bodies; a cheap handle. Bodies of at most 64 KiB are not counted, because the number of
/// connections is bounded.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<Bounds>);

#[derive(Debug)]
struct Bounds {
    max_bytes: usize,
    max_together: usize,
    timeout: Duration,
    /// Runs the tasks that read and discard the rest of refused bodies.
    afterwork: TaskTracker,
    /// The room that is left for bodies, in units of [`UNIT`].
    room: Arc<Semaphore>,
}

/// Bytes of one permit.
const UNIT: usize = 1 << 10;

impl Bodies {
    /// `afterwork` runs the tasks that discard the rest of refused bodies, which may still arrive after the refusal.
    pub fn new(http: &Http, afterwork: TaskTracker) -> Bodies {
        let units = (http.max_bodies_bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Bodies(Arc::new(Bounds {
            max_bytes: http.max_body_bytes,
            max_together: http.max_bodies_bytes,
            timeout: http.body_timeout_s.into(),
            afterwork,
            room: Arc::new(Semaphore::new(units)),
        }))
    }

    /// Largest body that is read, in bytes.
    pub(super) fn max_bytes(&self) -> usize {
        self.0.max_bytes
    }

    /// How long a body may take to arrive.
    pub(super) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Runs the tasks that continue after an answer.
    pub(super) fn afterwork(&self) -> &TaskTracker {
        &self.0.afterwork
    }

    /// Takes room for a body of `bytes` bytes. Requests get room in the order in which they ask for it.
    ///
    /// # Errors
    /// `bodies_full` if there is no room within [`Bodies::timeout`].
    pub(super) async fn room(&self, bytes: usize) -> Result<BodyRoom, ApiError> {
        let full = || ApiError::BodiesFull { limit: self.0.max_together };
        // The settings guarantee that the largest body fits.
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| full())?;
        let room = self.0.room.clone().acquire_many_owned(units);
        let permit = tokio::time::timeout(self.0.timeout, room).await.map_err(|_| full())?;
        let permit = permit.expect("the semaphore is never closed");
        Ok(BodyRoom { room: self.0.room.clone(), max_together: self.0.max_together, permit: Some(permit) })
    }
}

/// The right to keep a body in memory. The drop of the last `BodyRoom` returns the memory of large bodies to the
/// system, because the allocator would keep this memory.
#[derive(Debug)]
pub struct BodyRoom {
    room: Arc<Semaphore>,
    max_together: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyRoom {
    /// Gives back the room that the body does not need.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let surplus = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(permit.split(surplus));
        }
    }
}

impl Drop for BodyRoom {
    fn drop(&mut self) {
        self.permit = None;
        let is_last = self.room.available_permits() >= (self.max_together / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        if is_last && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(arena::trim);
        }
    }
}
