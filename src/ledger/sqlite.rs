//! The store of one process: a SQLite file.
//!
//! Writes queue for one connection and run under `BEGIN IMMEDIATE`, one transaction a change; reads have connections of
//! their own and see the last commit (WAL). `synchronous = FULL`: what was committed survives a power cut.

mod change;
mod ending;
mod folder;
mod queue;
mod reading;
mod row;
mod webhooks;

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::SqlitePool;

use crate::generation::{Event, Generation, GenerationId, Record};

use super::{Counts, Lease, ListQuery, Outcome, Page, Store, StoreError};

/// A handle to the store of one process; clones share it.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    /// The one connection that writes.
    writer: SqlitePool,
    readers: SqlitePool,
    /// How long a finished generation is kept.
    retention: Duration,
    /// Keeps other processes out for as long as any clone lives.
    _lock: Arc<File>,
}

impl SqliteStore {
    /// Opens the store in a folder, which is created where it is missing, and brings its schema up to date. Finished
    /// generations are due for deletion after `retention`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where another store has the folder open, in this process or another.
    pub async fn open(data_dir: &Path, retention: Duration) -> Result<SqliteStore, StoreError> {
        let lock = folder::lock(data_dir).await?;
        let options = folder::options(data_dir);
        let writer = folder::writer(options.clone()).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let readers = folder::readers(options);
        Ok(SqliteStore { writer, readers, retention, _lock: Arc::new(lock) })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(&self, id: GenerationId, generation: &Generation, max_queued: usize) -> Result<Record, StoreError> {
        queue::accept(self, id, generation, max_queued).await
    }

    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        reading::get(&self.readers, id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        reading::list(&self.readers, query).await
    }

    async fn claim(&self, limit: usize) -> Result<Vec<(Record, Lease)>, StoreError> {
        queue::claim(self, limit).await
    }

    async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Option<Record>, StoreError> {
        ending::finish(self, lease, outcome).await
    }

    async fn cancel(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        ending::cancel(self, id).await
    }

    async fn delete(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        ending::delete(self, id).await
    }

    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError> {
        reading::events(&self.readers, id, after).await
    }

    async fn requeue_running(&self, max_attempts: u32) -> Result<usize, StoreError> {
        queue::requeue_running(self, max_attempts).await
    }

    async fn find_input(&self, sha256: &str) -> Result<Option<GenerationId>, StoreError> {
        reading::find_input(&self.readers, sha256).await
    }

    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError> {
        queue::expire_overdue(self).await
    }

    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        reading::overdue_for_deletion(&self.readers, limit).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        reading::counts(&self.readers).await
    }

    async fn position(&self, id: GenerationId) -> Result<Option<usize>, StoreError> {
        reading::position(&self.readers, id).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        reading::ping(&self.readers).await
    }
}

/// SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: the index of the WAL could not be made larger.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 13 || code == 10 | 19 << 8)
}

#[cfg(test)]
mod tests {
    use sqlx::Executor;

    use super::*;
    use crate::generation::{Decoder, GuidanceInterval, MetadataLevel, OnDisconnect, SchedulerChoice, SeedMode};

    #[tokio::test]
    async fn a_full_disk_refuses_work_and_the_store_recovers_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
        let generation = generation("x".repeat(20_000));
        let first = GenerationId::new();
        store.accept(first, &generation, 9).await.unwrap();
        // SQLite answers as it does for ENOSPC once the file may not grow.
        store.writer.execute("PRAGMA max_page_count = 1").await.unwrap();
        for _ in 0..3 {
            let refused = store.accept(GenerationId::new(), &generation, 9).await;
            assert!(matches!(refused, Err(StoreError::StorageFull)), "{refused:?}");
        }
        store.writer.execute("PRAGMA max_page_count = 1000000").await.unwrap();
        let second = GenerationId::new();
        store.accept(second, &generation, 9).await.unwrap();
        let claimed = store.claim(9).await.unwrap();
        assert_eq!(claimed.iter().map(|(record, _)| record.id).collect::<Vec<_>>(), [first, second]);
    }

    #[tokio::test]
    async fn the_store_goes_on_after_a_commit_that_sqlite_undid() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
        // A commit that meets a full disk or a failing one is rolled back by SQLite, as one that a hook refuses.
        let mut connection = store.writer.acquire().await.unwrap();
        connection.lock_handle().await.unwrap().set_commit_hook(|| false);
        drop(connection);
        let refused = GenerationId::new();
        let error = store.accept(refused, &generation(String::new()), 9).await.unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error:?}");
        let accepted = GenerationId::new();
        store.accept(accepted, &generation(String::new()), 9).await.unwrap();
        assert!(store.get(refused).await.unwrap().is_none());
        assert_eq!(store.events(accepted, 0).await.unwrap().len(), 1);
    }

    fn generation(prompt: String) -> Generation {
        Generation {
            model: "tiny".to_owned(),
            prompt,
            negative_prompt: Some(String::new()),
            prompt_syntax: Default::default(),
            loras: Vec::new(),
            width: 64,
            height: 64,
            n: 1,
            steps: 1,
            levels: None,
            guidance_scale: 1.0,
            guidance_rescale: 0.0,
            guidance_interval: GuidanceInterval::WHOLE,
            scheduler: SchedulerChoice::Name("euler".to_owned()),
            eta: 0.0,
            clip_skip: 0,
            decoder: Decoder::Full,
            feature_cache: None,
            sdxl: None,
            refiner: None,
            controls: Vec::new(),
            source: None,
            seed: 0,
            seed_mode: SeedMode::PerImage,
            previews: 0,
            metadata_level: MetadataLevel::Full,
            on_disconnect: OnDisconnect::Auto,
            start_timeout_s: 600,
            webhook: None,
            metadata: Default::default(),
        }
    }
}
