//! The files of a generation that is not accepted yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Service, ServiceError};
use crate::generation::GenerationId;

/// The pictures that were stored for a request. Dropping the last clone, for example after the client disconnects,
/// erases the pictures, unless [`UnacceptedFiles::claim`] was called before.
#[derive(Clone)]
pub(super) struct UnacceptedFiles(Option<Arc<Files>>);

struct Files {
    id: GenerationId,
    service: Service,
    is_claimed: AtomicBool,
}

impl UnacceptedFiles {
    pub fn files_of(id: GenerationId, service: &Service) -> UnacceptedFiles {
        UnacceptedFiles(Some(Arc::new(Files { id, service: service.clone(), is_claimed: AtomicBool::new(false) })))
    }

    pub fn nothing() -> UnacceptedFiles {
        UnacceptedFiles(None)
    }

    /// Stores a file in a separate task, which runs to its end even if the client disconnects. Without this task, a
    /// disconnect would only drop the future that waits for the write. A blocking thread would still write the file,
    /// perhaps after the other files are erased, and nothing would erase this file.
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

    /// Makes the caller responsible for the files; returns whether there are any.
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
        // Without a runtime the process is ending, and a later sweep finds the files.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (id, service) = (self.id, self.service.clone());
            let tasks = service.0.tasks.clone();
            tasks.spawn_on(async move { service.erase_blobs(id).await }, &runtime);
        }
    }
}
