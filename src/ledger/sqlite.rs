//! The store of one process: a SQLite file.
//!
//! Writes queue for one connection and run under `BEGIN IMMEDIATE`, one transaction a change; reads have connections of
//! their own and see the last commit (WAL). `synchronous = FULL`: what was committed survives a power cut.

mod accepting;
mod change;
mod clock;
mod ending;
mod folder;
mod queue;
mod reading;
mod row;
mod webhooks;
mod workers;

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use sqlx::SqlitePool;

use crate::crash::Attempt;
use crate::generation::{Event, GenerationId, Preview, Record};

pub use clock::{Clock, Reading};

use super::{
    Acceptance, Accepted, Beat, Claimant, Counts, Fingerprint, Glance, Hint, KeyRecord, Lease, ListQuery, Orders,
    Outcome, Page, Place, Reaped, Reaping, Renewed, Report, Store, StoreError, WorkerRecord, Workload,
};

/// A handle to the store of one process; clones share it.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    /// The one connection that writes.
    writer: SqlitePool,
    readers: SqlitePool,
    clock: Clock,
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
        SqliteStore::open_by(Clock::system(), data_dir, retention).await
    }

    /// As [`SqliteStore::open`], by another clock.
    ///
    /// # Errors
    /// [`StoreError::Locked`].
    pub async fn open_by(clock: Clock, data_dir: &Path, retention: Duration) -> Result<SqliteStore, StoreError> {
        let lock = folder::lock(data_dir).await?;
        let options = folder::options(data_dir);
        let writer = folder::writer(options.clone()).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let readers = folder::readers(options);
        let store = SqliteStore { writer, readers, clock, retention, _lock: Arc::new(lock) };
        clock::settle(&store).await?;
        Ok(store)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(&self, acceptance: &Acceptance<'_>) -> Result<Accepted, StoreError> {
        accepting::accept(self, acceptance).await
    }

    async fn find_accepted(&self, tenant: &str, key: &str) -> Result<Option<(GenerationId, Fingerprint)>, StoreError> {
        accepting::find_accepted(self, tenant, key).await
    }

    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        reading::get(&self.readers, id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        reading::list(&self.readers, query).await
    }

    async fn claim(&self, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<(Record, Lease)>, StoreError> {
        queue::claim(self, by, limit, idle).await
    }

    async fn renew(&self, by: &Claimant, leases: &[Lease]) -> Result<Vec<Renewed>, StoreError> {
        queue::renew(self, by, leases).await
    }

    async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Option<Record>, StoreError> {
        ending::finish(self, lease, outcome).await
    }

    async fn reap(&self, reaping: &Reaping) -> Result<Reaped, StoreError> {
        queue::reap(self, reaping).await
    }

    async fn condemn(&self, attempt: Attempt) -> Result<Option<Record>, StoreError> {
        queue::condemn(self, attempt).await
    }

    async fn cancel(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        ending::cancel(self, id).await
    }

    async fn revive(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        ending::revive(self, id).await
    }

    async fn delete(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        ending::delete(self, id).await
    }

    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError> {
        reading::events(&self.readers, id, after).await
    }

    async fn find_input(&self, tenant: &str, sha256: &str) -> Result<Option<GenerationId>, StoreError> {
        reading::find_input(&self.readers, tenant, sha256).await
    }

    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError> {
        queue::expire_overdue(self).await
    }

    async fn age(&self, after: Duration) -> Result<(), StoreError> {
        queue::age(self, after).await
    }

    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        reading::overdue_for_deletion(self, limit).await
    }

    async fn purge(&self) -> Result<(), StoreError> {
        let now = self.clock.now_ms();
        sqlx::query("DELETE FROM idempotency WHERE expires_at <= ?").bind(now).execute(&self.writer).await?;
        let forgotten = now - workers::FORGOTTEN_MS;
        sqlx::query("DELETE FROM workers WHERE beaten_at <= ?").bind(forgotten).execute(&self.writer).await?;
        Ok(())
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        reading::counts(&self.readers).await
    }

    async fn counts_of(&self, tenant: &str) -> Result<Counts, StoreError> {
        reading::counts_of(&self.readers, tenant).await
    }

    async fn workload(&self, lately: Duration, slots: usize) -> Result<Workload, StoreError> {
        reading::workload(self, lately, slots).await
    }

    async fn place(&self, id: GenerationId) -> Result<Option<Place>, StoreError> {
        reading::place(&self.readers, id).await
    }

    fn is_shared(&self) -> bool {
        false
    }

    /// The only process sees its own progress.
    async fn report(&self, _: &[Report]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn glance(&self, ids: &[GenerationId]) -> Result<Vec<Glance>, StoreError> {
        reading::glance(&self.readers, ids).await
    }

    async fn previews(&self, _: GenerationId) -> Result<Vec<Preview>, StoreError> {
        Ok(Vec::new())
    }

    async fn hint(&self, _: &[Hint]) -> Result<(), StoreError> {
        Ok(())
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        futures::stream::pending().boxed()
    }

    async fn beat(&self, beat: &Beat) -> Result<Orders, StoreError> {
        workers::beat(self, beat).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        workers::workers(self).await
    }

    async fn drain_worker(&self, worker: &str, drain: bool) -> Result<bool, StoreError> {
        workers::drain(self, worker, drain).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        workers::leave(self, worker).await
    }

    async fn create_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        workers::create_key(self, key).await
    }

    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        workers::find_key(self, id).await
    }

    async fn has_keys(&self) -> Result<bool, StoreError> {
        workers::has_keys(self).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        reading::ping(&self.readers).await
    }
}

/// SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: the index of the WAL could not be made larger.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_none() {
        return false;
    }
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 13 || code == 10 | 19 << 8)
}

#[cfg(test)]
mod tests {
    use sqlx::{Executor, Row};

    use super::*;
    use crate::generation::{
        Decoder, Draw, GuidanceInterval, Job, MetadataLevel, OnDisconnect, Output, SchedulerChoice, SeedMode, Work,
    };

    #[tokio::test]
    async fn a_full_disk_refuses_work_and_the_store_recovers_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
        let generation = generation("x".repeat(20_000));
        let first = GenerationId::new();
        accept(&store, first, &generation).await.unwrap();
        // SQLite answers as it does for ENOSPC once the file may not grow.
        store.writer.execute("PRAGMA max_page_count = 1").await.unwrap();
        for _ in 0..3 {
            let refused = accept(&store, GenerationId::new(), &generation).await;
            assert!(matches!(refused, Err(StoreError::StorageFull)), "{refused:?}");
        }
        store.writer.execute("PRAGMA max_page_count = 1000000").await.unwrap();
        let second = GenerationId::new();
        accept(&store, second, &generation).await.unwrap();
        let claimed = store.claim(&claimant(), 9, true).await.unwrap();
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
        let error = accept(&store, refused, &generation(String::new())).await.unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error:?}");
        let accepted = GenerationId::new();
        accept(&store, accepted, &generation(String::new())).await.unwrap();
        assert!(store.get(refused).await.unwrap().is_none());
        assert_eq!(store.events(accepted, 0).await.unwrap().len(), 1);
    }

    pub async fn empty() -> (tempfile::TempDir, SqliteStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
        (dir, store)
    }

    /// What `EXPLAIN QUERY PLAN` says of a statement, line by line. Its parameters are NULL.
    pub async fn plan(store: &SqliteStore, sql: &str) -> String {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::raw_sql(explain).fetch_all(&store.writer).await.unwrap();
        rows.iter().map(|row| row.try_get::<String, _>("detail").unwrap() + "\n").collect()
    }

    fn claimant() -> Claimant {
        Claimant { worker: "one".to_owned(), lease: Duration::from_secs(30), models: vec!["tiny".to_owned()] }
    }

    async fn accept(store: &SqliteStore, id: GenerationId, job: &Job) -> Result<Accepted, StoreError> {
        let acceptance =
            Acceptance { id, tenant: "default", job, fingerprint: [0; 32], key: None, cost: 1.0, max_queued: 9 };
        store.accept(&acceptance).await
    }

    fn generation(prompt: String) -> Job {
        let draw = Draw {
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
        };
        Job {
            model: "tiny".to_owned(),
            work: Work::Draw(draw),
            previews: 0,
            output: Output { encoding: Default::default(), metadata_level: MetadataLevel::Full },
            on_disconnect: OnDisconnect::Auto,
            priority: Default::default(),
            start_timeout_s: 600,
            run_timeout_s: None,
            webhook: None,
            metadata: Default::default(),
        }
    }
}
