//! Files of a generation that is not accepted yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Service, ServiceError};
use crate::generation::GenerationId;

/// The pictures stored for a request. Unless they are claimed, as they are by the accepted generation, they are erased when
/// the last share of this is dropped: also where the client leaves meanwhile.
#[derive(Clone)]
pub(super) struct Unclaimed(Option<Arc<Files>>);

struct Files {
    id: GenerationId,
    service: Service,
    is_claimed: AtomicBool,
}

impl Unclaimed {
    pub fn files_of(id: GenerationId, service: &Service) -> Unclaimed {
        Unclaimed(Some(Arc::new(Files { id, service: service.clone(), is_claimed: AtomicBool::new(false) })))
    }

    pub fn nothing() -> Unclaimed {
        Unclaimed(None)
    }

    /// Stores a file in a task that is carried to its end though the client leaves: a write that is cut off goes on in the
    /// thread of the file system, and would leave its file behind after the others have been erased.
    pub async fn store(
        &self,
        service: &Service,
        put: impl Future<Output = Result<(), ServiceError>> + Send + 'static,
    ) -> Result<(), ServiceError> {
        let share = self.clone();
        let storing = service.0.tasks.spawn(async move {
            let stored = put.await;
            drop(share);
            stored
        });
        storing.await.unwrap_or_else(|error| Err(ServiceError::Blob(error.to_string())))
    }

    /// From here on the caller answers for them; whether there are any.
    pub fn claim(self) -> bool {
        let Some(files) = &self.0 else { return false };
        files.is_claimed.store(true, Ordering::Relaxed);
        true
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if *self.is_claimed.get_mut() {
            return;
        }
        // Outside of a runtime the process is at its end, and a sweep finds the files later.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (id, service) = (self.id, self.service.clone());
            let tasks = service.0.tasks.clone();
            tasks.spawn_on(async move { service.erase_blobs(id).await }, &runtime);
        }
    }
}
