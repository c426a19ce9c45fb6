//! Files of a generation that is not accepted yet.

use super::Service;
use crate::generation::GenerationId;

/// The pictures stored for a request. Unless they are claimed, as they are by the accepted generation, they are erased: also
/// where the client leaves meanwhile and this is dropped.
pub(super) struct Unclaimed(Option<(GenerationId, Service)>);

impl Unclaimed {
    pub fn files_of(id: GenerationId, service: &Service) -> Unclaimed {
        Unclaimed(Some((id, service.clone())))
    }

    pub fn nothing() -> Unclaimed {
        Unclaimed(None)
    }

    /// From here on the caller answers for them; whether there are any.
    pub fn claim(mut self) -> bool {
        self.0.take().is_some()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        // Outside of a runtime the process is at its end, and a sweep finds the files later.
        if let Some((id, service)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let tasks = service.0.tasks.clone();
            tasks.spawn_on(async move { service.erase_blobs(id).await }, &runtime);
        }
    }
}
