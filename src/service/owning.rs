//! What clients do with their finished generations: delete them, and give them stars.

use super::{Reach, Service, ServiceError, View, live::tenant_number};
use crate::{
    generation::{GenerationId, OwnerChange, Record},
    ledger::Hint,
};

impl Service {
    /// Erases a finished generation and its artifacts.
    pub async fn delete(&self, reach: impl Into<Reach<'_>> + Send, id: GenerationId) -> Result<(), ServiceError> {
        self.find(reach, id).await?;
        let record = self.query(self.0.store.delete(id, None)).await?.ok_or(ServiceError::NotFound)?;
        self.changed_by_owner(&record, OwnerChange::Deleted);
        self.erase_blobs(id).await;
        Ok(())
    }

    /// Gives a generation that succeeded a star, so that it is kept, or takes the star away.
    pub async fn star(
        &self,
        reach: impl Into<Reach<'_>> + Send,
        id: GenerationId,
        starred: bool,
    ) -> Result<View, ServiceError> {
        let before = self.find(reach, id).await?;
        let most = self.0.accept_policy.max_starred;
        let record = self.query(self.0.store.star(id, starred, most)).await?.ok_or(ServiceError::NotFound)?;
        if before.starred != starred {
            self.changed_by_owner(&record, if starred { OwnerChange::Starred } else { OwnerChange::Unstarred });
        }
        self.view(record).await
    }

    /// Tells the watchers of a tenant what a client has done with this finished generation.
    fn changed_by_owner(&self, record: &Record, change: OwnerChange) {
        let tenant = tenant_number(&record.tenant);
        match self.0.store.is_shared() {
            // This process hears the hint, too.
            true => self.0.outbox.tell(Hint::ChangedByOwner(change, record.id, tenant)),
            false => self.0.live.changed_by_owner(change, record.id, tenant),
        }
    }

    /// Erases the files of a generation that has no record. A failure only leaves the files until the next sweep.
    pub(super) async fn erase_blobs(&self, id: GenerationId) {
        if let Err(error) = self.0.blobs.delete_generation(id).await {
            tracing::warn!(%id, %error, "files without a generation stay for now");
        }
    }
}
