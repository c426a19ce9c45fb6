//! A disk that fails.

use sqlx::Executor;

use super::*;
use crate::ledger::{Beat, Fleet, StoreError};

#[tokio::test]
async fn a_full_disk_refuses_work_and_the_store_recovers_when_there_is_room() {
    let (_dir, writer, store) = empty().await;
    beat(&store, "first").await.unwrap();
    // SQLite answers as it does for ENOSPC once the file may not grow.
    writer.execute("PRAGMA max_page_count = 1").await.unwrap();
    for _ in 0..3 {
        let refused = beat(&store, "refused").await;
        assert!(matches!(refused, Err(StoreError::StorageFull)), "{refused:?}");
    }
    writer.execute("PRAGMA max_page_count = 1000000").await.unwrap();
    beat(&store, "second").await.unwrap();
    assert_eq!(workers(&store).await, ["first", "second"]);
}

#[tokio::test]
async fn the_store_goes_on_after_a_commit_that_sqlite_undid() {
    let (_dir, writer, store) = empty().await;
    // A commit that meets a full disk or a failing one is rolled back by SQLite, as one that a hook refuses.
    let mut connection = writer.acquire().await.unwrap();
    connection.lock_handle().await.unwrap().set_commit_hook(|| false);
    drop(connection);
    let change = store.begin(false).await.unwrap();
    let undone = change.conclude(Ok(())).await;
    assert!(matches!(undone, Err(StoreError::Database(_))), "{undone:?}");
    beat(&store, "kept").await.unwrap();
    assert_eq!(workers(&store).await, ["kept"]);
}

async fn empty() -> (tempfile::TempDir, SqlitePool, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(Clock::system(), dir.path()).await.unwrap();
    let writer = db.writer.clone();
    (dir, writer, Ledger { db: Arc::new(db), timeout: None, retention: Duration::ZERO })
}

/// A worker shows that it lives, in many bytes.
async fn beat(store: &Ledger, worker: &str) -> Result<()> {
    let beat =
        Beat { worker: worker.to_owned(), version: "x".repeat(20_000), models: Vec::new(), running: 0, speed: None };
    store.beat(&beat).await.map(drop)
}

async fn workers(store: &Ledger) -> Vec<String> {
    store.workers().await.unwrap().into_iter().map(|worker| worker.beat.worker).collect()
}
