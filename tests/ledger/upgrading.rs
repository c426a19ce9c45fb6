//! A SQLite file of an earlier version.

use std::{collections::HashMap, path::Path};

use latentd::generation::{EventKind, GenerationId, Status};
use latentd::ledger::{Acceptance, Counts, ListQuery, Outcome, StoreError};
use sqlx::{Connection, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions};

use crate::place::{
    Place, SqlitePlace, claim, generation, get, history, ids, image, problem, reap_all, reap_late, request, worker,
};

/// Applies the first so many migrations, as the version did that had no more.
async fn database(dir: &Path, migrations: usize) -> SqliteConnection {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    let mut files: Vec<_> = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > migrations);
    let earlier = tempfile::tempdir().unwrap();
    for file in &files[..migrations] {
        std::fs::copy(file, earlier.path().join(file.file_name().unwrap())).unwrap();
    }
    let options = SqliteConnectOptions::new().filename(dir.join("latentd.db")).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    Migrator::new(earlier.path()).await.unwrap().run(&mut connection).await.unwrap();
    connection
}

/// Writes a generation as that version did, with its events.
async fn insert(connection: &mut SqliteConnection, status: &str, at: i64, events: &[EventKind]) -> GenerationId {
    let id = GenerationId::new();
    let mut params = serde_json::to_value(generation()).unwrap();
    for later in ["priority", "run_timeout_s"] {
        params.as_object_mut().unwrap().remove(later).unwrap();
    }
    let started = events.contains(&EventKind::Started);
    let ended = events.last().unwrap().is_terminal().then_some(at);
    let json = |value: serde_json::Value| value.to_string();
    sqlx::query(
        "INSERT INTO generations (id, status, model, params, attempt, fence, version, created_at, run_at, start_deadline,
             started_at, finished_at, expires_at, problem, images)
         VALUES (?1, ?2, 'tiny', ?3, ?4, ?4, ?5, ?6, ?6, ?7, ?8, ?9, ?9, ?10, ?11)",
    )
    .bind(&id.as_bytes()[..])
    .bind(status)
    .bind(params.to_string())
    .bind(i64::from(started))
    .bind(events.len() as i64)
    .bind(at)
    .bind((!started).then_some(at + 600_000))
    .bind(started.then_some(at))
    .bind(ended)
    .bind((status == "failed").then(|| json(serde_json::to_value(problem()).unwrap())))
    .bind((status == "succeeded").then(|| json(serde_json::json!([image()]))))
    .execute(&mut *connection)
    .await
    .unwrap();
    for (seq, kind) in (1..).zip(events) {
        let data = match kind {
            EventKind::Started => serde_json::json!({"id": id, "attempt": 1}),
            EventKind::Queued => serde_json::json!({"id": id, "status": "queued"}),
            _ => serde_json::json!({"id": id, "status": status}),
        };
        sqlx::query("INSERT INTO generation_events (generation_id, seq, kind, data, at) VALUES (?, ?, ?, ?, ?)")
            .bind(&id.as_bytes()[..])
            .bind(seq)
            .bind(kind.as_str())
            .bind(data.to_string())
            .bind(at)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_an_earlier_version_goes_on() {
    use EventKind::{Canceled, Expired, Failed, Queued, Started, Succeeded};
    let place = SqlitePlace::new();
    let mut connection = database(place.path(), 2).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
    let mut old = HashMap::new();
    for (status, events) in [
        ("queued", &[Queued][..]),
        ("running", &[Queued, Started]),
        ("succeeded", &[Queued, Started, Succeeded]),
        ("failed", &[Queued, Started, Failed]),
        ("canceled", &[Queued, Canceled]),
        ("expired", &[Queued, Expired]),
    ] {
        old.insert(status, insert(&mut connection, status, now, events).await);
    }
    let last = insert(&mut connection, "queued", now, &[Queued]).await;
    connection.close().await.unwrap();

    let store = place.open().await;
    for (status, id) in &old {
        let record = get(&*store, *id).await;
        assert_eq!((record.status.as_str(), record.tenant.as_str()), (*status, "default"));
        assert_eq!((record.crash_count, record.dead), (0, false));
        let expected = latentd::generation::Generation { run_timeout_s: None, ..generation() };
        assert_eq!(record.generation, expected);
        history(&*store, *id).await;
        let generation = generation();
        let again = store.accept(&Acceptance { id: *id, ..request(&generation) }).await;
        assert!(matches!(again, Err(StoreError::IdTaken)), "nobody knows what its client has sent: {again:?}");
    }
    assert_eq!(get(&*store, old["succeeded"]).await.status, Status::Succeeded { images: vec![image()] });
    assert_eq!(get(&*store, old["failed"]).await.status, Status::Failed { problem: problem() });
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 2, running: 1 });
    assert_eq!(store.workload(crate::place::HOUR, 0).await.unwrap().cost, 0.0);
    let queued = ListQuery { limit: 9, status: Some("queued".to_owned()), ..ListQuery::default() };
    let page = store.list(&queued).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.id).collect::<Vec<_>>(), [last, old["queued"]]);
    let dead = ListQuery { limit: 9, dead: true, ..ListQuery::default() };
    assert!(store.list(&dead).await.unwrap().records.is_empty());

    // What waited is before all that comes now, in its order.
    let new = crate::place::accept(&*store, 1).await[0];
    for (at, id) in [old["queued"], last, new].iter().enumerate() {
        assert_eq!(store.place(*id).await.unwrap().map(|place| place.position), Some(at));
    }
    // What ran has no worker any more, whether it is asked for by its lease or not.
    assert_eq!(reap_late(&*store, 9).await.queued, [old["running"]]);
    assert_eq!(ids(&claim(&*store, 9).await), [old["queued"]]);
    assert_eq!(ids(&store.claim(&worker("two"), 9, true).await.unwrap()), [old["running"]]);
    let mut rest = claim(&*store, 9).await;
    assert_eq!(ids(&rest), [last, new]);
    store.finish(rest.remove(0).1, Outcome::Succeeded(vec![image()])).await.unwrap().unwrap();
    assert_eq!(history(&*store, last).await, [Queued, Started, Succeeded]);
    assert_eq!(reap_all(&*store, 9).await.queued.len(), 3);
    store.delete(old["canceled"]).await.unwrap().unwrap();
    drop(store);
    assert_eq!(place.open().await.counts().await.unwrap(), Counts { queued: 3, running: 0 });
}
