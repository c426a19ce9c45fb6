//! Deletes files that no row refers to: leftovers of crashed processes and of attempts that did not succeed.

use std::time::SystemTime;

use super::Sweeper;
use crate::{
    generation::{GenerationId, Record, Status},
    ledger::{BlobError, StoreError, blobs::fence_of},
};

impl Sweeper {
    /// Deletes logs of generations that have ended or do not exist. Usually the worker has already deleted them.
    pub(super) async fn erase_logs(&self) -> Result<(), StoreError> {
        let ids = match self.blobs.logs().await {
            Ok(ids) => ids,
            Err(error) => {
                tracing::warn!(%error, "the generations with a log cannot be listed");
                return Ok(());
            }
        };
        for id in ids {
            let is_over = self.store.get(id).await?.is_none_or(|record| record.status.is_terminal());
            if is_over && let Err(error) = self.blobs.delete_log(id).await {
                tracing::warn!(%id, %error, "the log of an ended generation cannot be deleted yet");
            }
        }
        Ok(())
    }

    /// Deletes files of generations that were never accepted, and artifacts of attempts that did not succeed. A worker
    /// that has lost its lease may store such artifacts at any time.
    pub(super) async fn erase_orphans(&self) -> Result<(), StoreError> {
        let ids = match self.blobs.generations().await {
            Ok(ids) => ids,
            Err(error) => {
                tracing::warn!(%error, "the generations with files cannot be listed");
                return Ok(());
            }
        };
        for id in ids.into_iter().filter(|id| self.is_old(id.made_at())) {
            let record = self.store.get(id).await?;
            let is_blocked = record.as_ref().is_some_and(Record::is_content_filtered);
            let erased = match record.map(|record| record.status) {
                None => self.erase_unaccepted(id).await,
                Some(_) if is_blocked => self.blobs.delete_generation(id).await,
                Some(Status::Queued | Status::Running) => Ok(()),
                // The first attempt has succeeded, so there are no other attempts.
                Some(status) if winner(&status) == Some(1) => Ok(()),
                Some(_) => self.erase_losers(id).await?,
            };
            if let Err(error) = erased {
                tracing::warn!(%id, %error, "files that no row refers to cannot be deleted yet");
            }
        }
        Ok(())
    }

    /// Deletes the files of a generation that has no row. Uploads are stored before the generation is accepted, so
    /// recent files are kept. Clients can choose the id, so the time in the id does not tell how old the files are.
    async fn erase_unaccepted(&self, id: GenerationId) -> Result<(), BlobError> {
        match self.blobs.last_stored(id).await? {
            Some(stored) if !self.is_old(stored) => Ok(()),
            _ => self.blobs.delete_generation(id).await,
        }
    }

    /// Deletes the artifacts of all attempts except the one that succeeded, if the generation has ended.
    async fn erase_losers(&self, id: GenerationId) -> Result<Result<(), BlobError>, StoreError> {
        let fences = match self.blobs.fences(id).await {
            Ok(fences) => fences,
            Err(error) => return Ok(Err(error)),
        };
        match self.store.get(id).await? {
            Some(record) if record.status.is_terminal() => {
                Ok(self.blobs.delete_attempts(id, &fences, winner(&record.status)).await)
            }
            _ => Ok(Ok(())),
        }
    }

    /// Deletes all files of a deleted generation.
    pub(super) async fn erase_blobs(&self, id: GenerationId) {
        if let Err(error) = self.blobs.delete_generation(id).await {
            tracing::warn!(%id, %error, "the files of a deleted generation cannot be deleted yet");
        }
    }

    /// Whether `at` is longer ago than [`Sweeper::orphan_age`].
    fn is_old(&self, at: SystemTime) -> bool {
        SystemTime::now().duration_since(at).is_ok_and(|age| age > self.orphan_age)
    }
}

/// The fence of the attempt whose artifacts the ledger names.
fn winner(status: &Status) -> Option<i64> {
    let Status::Succeeded { artifacts } = status else { return None };
    artifacts.first().and_then(|artifact| fence_of(&artifact.blob))
}
