//! A disk that fails, and how SQLite plans the statements that look at many rows.

use sqlx::{AssertSqlSafe, Executor, Row};

use super::*;
use crate::generation::{EndpointId, GenerationId, SigningSecret, WebhookEvent};
use crate::ledger::{
    EndpointTerms, ListQuery, NewEndpoint, Webhooks,
    claiming::{ALONE, LOOK, TAKE},
    outgoing::CLAIM,
    reading::{COUNTS, COUNTS_OF, PLACE, WORKLOAD, listing},
    upkeep::{AGE, LATE, OVERDUE},
};

#[tokio::test]
async fn a_full_disk_refuses_work_and_the_store_recovers_when_there_is_room() {
    let (_dir, store) = empty().await;
    let first = register(&store, 20_000).await.unwrap();
    // SQLite answers as it does for ENOSPC once the file may not grow.
    store.db.writer.execute("PRAGMA max_page_count = 1").await.unwrap();
    for _ in 0..3 {
        let refused = register(&store, 20_000).await;
        assert!(matches!(refused, Err(StoreError::StorageFull)), "{refused:?}");
    }
    store.db.writer.execute("PRAGMA max_page_count = 1000000").await.unwrap();
    let second = register(&store, 20_000).await.unwrap();
    let kept = store.endpoints("default").await.unwrap();
    assert_eq!(kept.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>(), [first, second]);
}

#[tokio::test]
async fn the_store_goes_on_after_a_commit_that_sqlite_undid() {
    let (_dir, store) = empty().await;
    // A commit that meets a full disk or a failing one is rolled back by SQLite, as one that a hook refuses.
    let mut connection = store.db.writer.acquire().await.unwrap();
    connection.lock_handle().await.unwrap().set_commit_hook(|| false);
    drop(connection);
    let error = register(&store, 0).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");
    let kept = register(&store, 0).await.unwrap();
    let all = store.endpoints("default").await.unwrap();
    assert_eq!(all.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>(), [kept]);
}

#[tokio::test]
async fn the_claim_reads_only_indexes_and_sorts_nothing() {
    let (_dir, store) = empty().await;
    for text in [LOOK, TAKE] {
        let plan = plan(&store, text).await;
        assert!(plan.contains("generations USING COVERING INDEX generations_claim"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
    let alone = plan(&store, ALONE).await;
    assert!(alone.contains("generations USING COVERING INDEX generations_running"), "{alone}");
}

#[tokio::test]
async fn what_is_looked_for_every_second_is_found_by_an_index() {
    let (_dir, store) = empty().await;
    for (text, index) in [(OVERDUE, "generations_start"), (AGE, "generations_aged")] {
        let plan = plan(&store, text).await;
        assert!(plan.contains(&format!("SEARCH generations USING INDEX {index}")), "{plan}");
    }
    let late = plan(&store, LATE).await;
    assert!(late.contains("generations USING INDEX generations_running"), "{late}");
}

#[tokio::test]
async fn steps_find_their_rows_by_their_ids() {
    let (_dir, store) = empty().await;
    let plan = plan(&store, crate::ledger::change::SET_STATE).await;
    assert!(plan.contains("SEARCH generations USING INDEX sqlite_autoindex_generations_1 (id=?)"), "{plan}");
}

#[tokio::test]
async fn the_claim_of_deliveries_walks_what_is_due_and_nothing_else() {
    let (_dir, store) = empty().await;
    let plan = plan(&store, CLAIM).await;
    assert!(plan.contains("SEARCH this USING INDEX webhook_deliveries_due"), "{plan}");
    assert!(plan.contains("webhook_deliveries_pending (generation_id=? AND seq<?)"), "{plan}");
    let scans =
        plan.matches("SCAN").count() - plan.matches("SCAN json_each").count() - plan.matches("SCAN picked").count();
    assert!(scans == 0 && !plan.contains("TEMP B-TREE"), "{plan}");
}

#[tokio::test]
async fn counts_read_only_indexes() {
    let (_dir, store) = empty().await;
    for text in [COUNTS, COUNTS_OF] {
        let counts = plan(&store, text).await;
        assert_eq!(counts.matches("SEARCH generations USING COVERING INDEX").count(), 2, "{counts}");
    }
    let workload = plan(&store, WORKLOAD).await;
    assert!(workload.contains("SEARCH generations USING COVERING INDEX generations_status"), "{workload}");
    let place = plan(&store, PLACE).await;
    assert_eq!(place.matches("SEARCH other USING INDEX generations_claim").count(), 2, "{place}");
    assert!(
        place.contains("SEARCH generations USING COVERING INDEX generations_status (status=? AND id=?)"),
        "{place}"
    );
}

#[tokio::test]
async fn every_list_walks_an_index_in_its_order() {
    let (_dir, store) = empty().await;
    let id = GenerationId::new();
    let word = || Some("word".to_owned());
    for bits in 0..64 {
        let query = ListQuery {
            limit: 20,
            after: (bits & 1 != 0).then_some(id),
            before: (bits & 2 != 0).then_some(id),
            status: word().filter(|_| bits & 4 != 0),
            model: word().filter(|_| bits & 8 != 0),
            tenant: word().filter(|_| bits & 16 != 0),
            dead: bits & 32 != 0,
        };
        for ascending in [false, true] {
            let plan = plan(&store, &listing(&query, ascending, 21).0).await;
            assert!(plan.contains("generations USING INDEX"), "{query:?}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
            let narrow = query.status.is_some() || query.model.is_some() || query.tenant.is_some();
            let whole = plan.contains("SCAN") || plan.contains("sqlite_autoindex");
            assert!(!(narrow && whole) || plan.contains("generations_dead"), "{query:?}: {plan}");
            assert_eq!(plan.contains("generations_dead"), query.dead, "{query:?}: {plan}");
        }
    }
}

async fn empty() -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
    (dir, store)
}

/// Registers a receiver with so many letters about it.
async fn register(store: &SqliteStore, letters: usize) -> Result<EndpointId, StoreError> {
    let terms = EndpointTerms {
        url: "https://example.com/".to_owned(),
        events: vec![WebhookEvent::Completed],
        description: "x".repeat(letters),
        enabled: true,
    };
    let (id, secret) = (EndpointId::new(), SigningSecret::from_key(vec![7; 32]).unwrap());
    let new = NewEndpoint { id, tenant: "default", terms: &terms, secret: &secret };
    Ok(store.create_endpoint(&new, 9).await?.expect("there is room").id)
}

/// What `EXPLAIN QUERY PLAN` says of a statement, line by line. Its parameters are NULL.
async fn plan(store: &SqliteStore, text: &str) -> String {
    let (text, _) = words::translate(text, &[], 0).unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
    let rows = sqlx::raw_sql(explain).fetch_all(&store.db.writer).await.unwrap();
    rows.iter().map(|row| row.try_get::<String, _>("detail").unwrap() + "\n").collect()
}
