//! Detects that a waiting client disconnects, and cancels its generation if the request wants that.

use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{AppState, tries::Present};
use crate::{
    generation::{GenerationId, OnDisconnect},
    service::{Service, View},
};

/// What a client waits for on an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The generation object. A client that disconnects is expected to look for its generation later.
    ForObject,
    /// The result in this answer: the bytes of a picture, or the event stream of the client's own request. A client
    /// that disconnects may not know the generation's id.
    ForResult,
}

/// The client of a waiting request. If the connection closes, the presence is dropped before [`Presence::keep`] was
/// called; dropping it then cancels the generation if the request wants that.
#[derive(Debug)]
pub struct Presence {
    leaving: Option<Leaving>,
}

struct Leaving {
    service: Service,
    afterwork: TaskTracker,
    id: GenerationId,
    /// Set if the client repeats its request by itself after a lost connection.
    present: Option<Present>,
    /// Makes the shutdown wait until it is known whether a task of `afterwork` must cancel the generation.
    open: TaskTrackerToken,
}

impl std::fmt::Debug for Leaving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Leaving").field(&self.id).finish()
    }
}

impl Presence {
    /// `is_repeatable` says whether an idempotency key or an id lets the client come back for the same generation.
    /// `present` is given if the client repeats its request by itself. Then the generation is canceled only if the
    /// client does not return in time. But if `on_disconnect` is `cancel`, the generation is canceled at once.
    pub fn of(state: &AppState, view: &View, waits: Waits, is_repeatable: bool, present: Option<Present>) -> Presence {
        let job = &view.record.job;
        let leaving = cancels(job.on_disconnect, waits, is_repeatable).then(|| Leaving {
            service: state.service.clone(),
            afterwork: state.afterwork.clone(),
            id: view.record.id,
            present: present.filter(|_| job.on_disconnect != OnDisconnect::Cancel),
            open: state.afterwork.token(),
        });
        Presence { leaving }
    }

    /// A presence that never cancels its generation.
    pub fn indifferent() -> Presence {
        Presence { leaving: None }
    }

    /// Keeps the generation from being canceled, because the answer is complete or the server itself ends the wait.
    pub fn keep(&mut self) {
        self.leaving = None;
    }
}

fn cancels(wish: OnDisconnect, waits: Waits, is_repeatable: bool) -> bool {
    match wish {
        OnDisconnect::Keep => false,
        OnDisconnect::Cancel => true,
        OnDisconnect::Auto => waits == Waits::ForResult && !is_repeatable,
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Some(Leaving { service, afterwork, id, present, open }) = self.leaving.take() else {
            return;
        };
        // Outside of a runtime the process is ending, and the ledger gives the generation to the next process.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let canceling = async move {
            if let Some(present) = present
                && present.returns().await
            {
                return;
            }
            match service.cancel_disconnected(id).await {
                Ok(_) => tracing::info!(%id, "a generation was canceled because its client disconnected"),
                Err(error) => {
                    tracing::warn!(%id, %error, "a generation cannot be canceled after its client disconnected")
                }
            }
        };
        afterwork.spawn_on(canceling, &runtime);
        drop(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disconnecting_cancels_as_the_request_wishes_and_by_default_what_cannot_be_repeated() {
        assert!(cancels(OnDisconnect::Auto, Waits::ForResult, false));
        assert!(!cancels(OnDisconnect::Auto, Waits::ForResult, true));
        assert!(!cancels(OnDisconnect::Auto, Waits::ForObject, false));
        assert!(cancels(OnDisconnect::Cancel, Waits::ForObject, false));
        assert!(cancels(OnDisconnect::Cancel, Waits::ForObject, true));
        assert!(!cancels(OnDisconnect::Keep, Waits::ForResult, false));
    }
}
