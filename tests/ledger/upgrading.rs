//! Tests of databases that an earlier version has written.

use std::{collections::HashMap, path::Path, time::Duration};

use latentd::generation::{Artifact, EventKind, Facts, Format, GenerationId, Job, KeyTerms, Status, Work};
use latentd::ledger::{Acceptance, Counts, Crew, KeyRecord, ListQuery, Outcome, Refusal, StoreError, Usage};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{
    Connection, PgConnection, Row, SqliteConnection,
    migrate::Migrator,
    sqlite::SqliteConnectOptions,
    types::{Json, Uuid},
};

use crate::place::{
    HOUR, LAST, PgPlace, Place, SqlitePlace, accept, artifact, claim, claim_one, crew, film, generation, get, history,
    ids, problem, reap_all, reap_late, request,
};

/// A picture as stored by versions that had no other artifacts. Every picture was a PNG file.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct OldImage {
    index: u32,
    width: u32,
    height: u32,
    seed: u64,
    bytes: u64,
    sha256: String,
    blob: String,
}

fn old_images() -> Value {
    json!([
        {"index": 0, "width": 64, "height": 128, "seed": 7, "bytes": 1234, "sha256": "00ff", "blob": "img/x/1/0.png"},
        {"index": 1, "width": 72, "height": 88, "seed": u64::MAX, "bytes": 4321, "sha256": "11ff", "blob": "img/x/1/1.png"},
    ])
}

/// The same pictures as artifacts of this version.
fn artifacts() -> Vec<Artifact> {
    let second = Artifact {
        index: 1,
        media_type: Format::Png.into(),
        bytes: 4321,
        sha256: "11ff".to_owned(),
        unsigned_sha256: None,
        watermark: None,
        blob: "img/x/1/1.png".to_owned(),
        flagged: None,
        facts: Facts::Picture { width: 72, height: 88, seed: u64::MAX },
    };
    vec![artifact(), second]
}

/// The first `migrations` migrations, as an earlier version had them.
async fn earlier(dialect: &str, migrations: usize) -> Migrator {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(dialect);
    let mut files: Vec<_> = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > migrations);
    let earlier = tempfile::tempdir().unwrap();
    for file in &files[..migrations] {
        std::fs::copy(file, earlier.path().join(file.file_name().unwrap())).unwrap();
    }
    Migrator::new(earlier.path()).await.unwrap()
}

/// Creates a SQLite database with the first `migrations` migrations.
async fn database(dir: &Path, migrations: usize) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(dir.join("latentd.db")).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    earlier("sqlite", migrations).await.run(&mut connection).await.unwrap();
    connection
}

/// Inserts a generation and its events as a version with two to four migrations did.
async fn insert(connection: &mut SqliteConnection, status: &str, at: i64, events: &[EventKind]) -> GenerationId {
    let id = GenerationId::new();
    let mut params = serde_json::to_value(generation()).unwrap();
    for later in ["priority", "run_timeout_s"] {
        params.as_object_mut().unwrap().remove(later).unwrap();
    }
    let started = events.contains(&EventKind::Started);
    let ended = events.last().unwrap().is_terminal().then_some(at);
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
    .bind((status == "failed").then(|| serde_json::to_string(&problem()).unwrap()))
    .bind((status == "succeeded").then(|| old_images().to_string()))
    .execute(&mut *connection)
    .await
    .unwrap();
    for (seq, kind) in (1..).zip(events) {
        let data = match kind {
            EventKind::Started => json!({"id": id, "attempt": 1}),
            EventKind::Queued => json!({"id": id, "status": "queued"}),
            _ => json!({"id": id, "status": status}),
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
async fn a_database_of_an_earlier_version_is_migrated() {
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
        let expected = latentd::generation::Job { run_timeout_s: None, ..generation() };
        assert_eq!(record.job, expected);
        history(&*store, *id).await;
        let generation = generation();
        let again = store.accept(&Acceptance { id: *id, ..request(&generation) }).await;
        assert!(
            matches!(again, Err(StoreError::Refused(Refusal::IdTaken))),
            "the fingerprint of an old generation is unknown: {again:?}"
        );
    }
    assert_eq!(get(&*store, old["succeeded"]).await.status, Status::Succeeded { artifacts: artifacts() });
    assert_eq!(get(&*store, old["failed"]).await.status, Status::Failed { problem: problem() });
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 2, running: 1 });
    assert_eq!(store.workload(&LAST, &crew(crate::place::HOUR, 0)).await.unwrap().cost, 0.0);
    let queued = ListQuery { limit: 9, status: Some("queued".to_owned()), ..ListQuery::default() };
    let page = store.list(&queued).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.id).collect::<Vec<_>>(), [last, old["queued"]]);
    let dead = ListQuery { limit: 9, dead: true, ..ListQuery::default() };
    assert!(store.list(&dead).await.unwrap().records.is_empty());

    // Old queued generations are before new ones, in their order.
    let new = accept(&*store, 1).await[0];
    for (at, id) in [old["queued"], last, new].iter().enumerate() {
        assert_eq!(store.place(*id, &Crew::default()).await.unwrap().map(|place| place.position), Some(at));
    }
    // The old running generation has no lease, so it is reaped as if its lease had ended.
    assert_eq!(reap_late(&*store, 9).await.queued, [old["running"]]);
    let mut claimed = claim(&*store, 9).await;
    assert_eq!(ids(&claimed), [old["queued"], old["running"], last, new]);
    store.finish(claimed.remove(2).1, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
    assert_eq!(history(&*store, last).await, [Queued, Started, Succeeded]);
    assert_eq!(reap_all(&*store, 9).await.queued.len(), 3);
    store.delete(old["canceled"], None).await.unwrap().unwrap();
    drop(store);
    assert_eq!(place.open().await.counts().await.unwrap(), Counts { queued: 3, running: 0 });
}

/// The migration keeps the order of pictures, numbers above SQLite's largest integer, and empty lists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_of_an_earlier_version_become_artifacts() {
    use EventKind::{Queued, Started, Succeeded};
    let place = SqlitePlace::new();
    let mut connection = database(place.path(), 4).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
    let two = insert(&mut connection, "succeeded", now, &[Queued, Started, Succeeded]).await;
    let none = insert(&mut connection, "succeeded", now, &[Queued, Started, Succeeded]).await;
    let queued = insert(&mut connection, "queued", now, &[Queued]).await;
    sqlx::query("UPDATE generations SET images = '[]' WHERE id = ?")
        .bind(&none.as_bytes()[..])
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();

    let store = place.open().await;
    assert_eq!(get(&*store, two).await.status, Status::Succeeded { artifacts: artifacts() });
    assert_eq!(get(&*store, none).await.status, Status::Succeeded { artifacts: Vec::new() });
    let (record, lease) = claim_one(&*store).await;
    assert_eq!(record.id, queued);
    let finished = store.finish(lease, Outcome::Succeeded(artifacts())).await.unwrap().unwrap();
    assert_eq!(finished.status, Status::Succeeded { artifacts: artifacts() });
}

fn uuid(id: GenerationId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// Inserts a generation as the version with two migrations did.
async fn insert_into_postgres(connection: &mut PgConnection, images: Option<Value>) -> GenerationId {
    let id = GenerationId::new();
    let status = if images.is_some() { "succeeded" } else { "queued" };
    sqlx::query(
        "INSERT INTO generations (id, status, model, aged_at, run_at, created_at, finished_at, expires_at, images, params)
         VALUES ($1, $2, 'tiny', now(), now(), now(), CASE WHEN $3::jsonb IS NOT NULL THEN now() END,
                 CASE WHEN $3::jsonb IS NOT NULL THEN now() + interval '1 hour' END, $3, $4)",
    )
    .bind(uuid(id))
    .bind(status)
    .bind(images)
    .bind(Json(generation()))
    .execute(&mut *connection)
    .await
    .unwrap();
    let queued = "INSERT INTO generation_events (generation_id, seq, kind, data, at) VALUES ($1, 1, $2, $3, now())";
    sqlx::query(queued)
        .bind(uuid(id))
        .bind(EventKind::Queued.as_str())
        .bind(json!({"id": id, "status": "queued"}))
        .execute(&mut *connection)
        .await
        .unwrap();
    id
}

/// While processes are replaced one by one, processes of the previous version read and write their old columns, and all
/// processes see the same pictures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_of_two_versions_share_a_database() {
    let Some(place) = PgPlace::new().await else { return };
    let mut old = PgConnection::connect(place.url()).await.unwrap();
    earlier("postgres", 2).await.run(&mut old).await.unwrap();
    let two = insert_into_postgres(&mut old, Some(old_images())).await;
    let none = insert_into_postgres(&mut old, Some(json!([]))).await;
    let queued = [insert_into_postgres(&mut old, None).await, insert_into_postgres(&mut old, None).await];

    let store = place.open().await;
    assert_eq!(get(&*store, two).await.status, Status::Succeeded { artifacts: artifacts() });
    assert_eq!(get(&*store, none).await.status, Status::Succeeded { artifacts: Vec::new() });
    let mut leases = claim(&*store, 9).await;
    assert_eq!(ids(&leases), queued);

    // The previous version stores a preview and ends a run.
    let preview = "INSERT INTO generation_previews (generation_id, image, fence, step, preview_index, png)
                   VALUES ($1, 0, 1, 1, 0, 'png')";
    sqlx::query(preview).bind(uuid(queued[0])).execute(&mut old).await.unwrap();
    let ended = sqlx::query(
        "UPDATE generations
         SET status = 'succeeded', images = $2, problem = NULL, finished_at = statement_timestamp(),
             expires_at = statement_timestamp() + interval '1 hour', version = version + 1, dead = false,
             lease_owner = NULL, lease_expires_at = NULL
         WHERE id = $1 AND status IN ('queued', 'running')
         RETURNING images",
    )
    .bind(uuid(queued[0]))
    .bind(old_images())
    .fetch_one(&mut old)
    .await
    .unwrap();
    assert_eq!(ended.get::<Value, _>("images"), old_images());
    assert_eq!(get(&*store, queued[0]).await.status, Status::Succeeded { artifacts: artifacts() });

    // The previous version reads what this version has written.
    let lease = leases.remove(1).1;
    store.finish(lease, Outcome::Succeeded(artifacts())).await.unwrap().unwrap();
    let Json(read): Json<Vec<OldImage>> = sqlx::query_scalar("SELECT images FROM generations WHERE id = $1")
        .bind(uuid(queued[1]))
        .fetch_one(&mut old)
        .await
        .unwrap();
    let written: Vec<OldImage> = serde_json::from_value(old_images()).unwrap();
    assert_eq!(read, written);
}

/// The statements of the version with four migrations: it creates a key, and finds one.
const OLD_CREATE: &str = "INSERT INTO api_keys (id, sha256, tenant_id, created_at) VALUES ($1, $2, $3, now())";
const OLD_FIND: &str = "SELECT api_keys.id AS id, sha256, tenant_id AS tenant, weight, max_queued, max_running
     FROM api_keys JOIN tenants ON tenants.id = tenant_id WHERE api_keys.id = $1 AND revoked_at IS NULL";

/// While processes are replaced one by one, keys of both versions are valid in both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_of_two_versions_share_keys() {
    let Some(place) = PgPlace::new().await else { return };
    let mut old = PgConnection::connect(place.url()).await.unwrap();
    earlier("postgres", 4).await.run(&mut old).await.unwrap();
    let create = async |old: &mut PgConnection, id: &str| {
        sqlx::query(OLD_CREATE).bind(id).bind(vec![1_u8; 32]).bind("default").execute(old).await.unwrap();
    };
    create(&mut old, "before").await;
    let store = place.open().await;
    create(&mut old, "beside").await;
    for id in ["before", "beside"] {
        let found = store.find_key(id).await.unwrap().unwrap();
        assert_eq!((found.record.terms, found.expires_at, found.revoked_at), (KeyTerms::default(), None, None), "{id}");
        let generation = generation();
        store.accept(&Acceptance { api_key: Some(id), ..request(&generation) }).await.unwrap();
    }
    let new = KeyRecord { id: "new".to_owned(), ..store.find_key("before").await.unwrap().unwrap().record };
    store.create_key(&new).await.unwrap();
    store.revoke_key("before").await.unwrap().unwrap();
    for (id, is_found) in [("new", true), ("before", false)] {
        let found = sqlx::query(OLD_FIND).bind(id).fetch_all(&mut old).await.unwrap();
        assert_eq!(found.len() == 1, is_found, "{id}");
    }
}

/// The statement by which versions with at most eleven migrations count a generation.
const OLD_COUNT: &str = "INSERT INTO daily_usage (tenant_id, key_id, day, generations, images, cost, last_at)
     VALUES ('default', '', $1, 1, 2, 1.5, now())
     ON CONFLICT (tenant_id, key_id, day) DO UPDATE
     SET generations = daily_usage.generations + 1, images = daily_usage.images + excluded.images,
         cost = daily_usage.cost + excluded.cost, last_at = excluded.last_at";

/// The usage of two generations of an earlier version, on one day.
const OLD_USAGE: Usage =
    Usage { generations: 2, images: 4, films: 0, film_seconds: 0.0, sounds: 0, sound_seconds: 0.0, cost: 3.0 };

/// While processes are replaced one by one, both versions count, and only the new one knows films and sounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_of_two_versions_count_together() {
    let Some(place) = PgPlace::new().await else { return };
    let mut old = PgConnection::connect(place.url()).await.unwrap();
    earlier("postgres", 11).await.run(&mut old).await.unwrap();
    let count = async |old: &mut PgConnection, day: &str| {
        for _ in 0..2 {
            sqlx::query(OLD_COUNT).bind(day).execute(&mut *old).await.unwrap();
        }
    };
    count(&mut old, "2026-01-01").await;
    let store = place.open().await;
    let job = Job { work: Work::Film(film()), ..generation() };
    store.accept(&Acceptance { cost: 1.0, ..request(&job) }).await.unwrap();
    let today = store.usage("default", "", 1).await.unwrap()[0].day.clone();
    count(&mut old, &today).await;
    let days = store.usage("default", "", 2).await.unwrap();
    let both = Usage { generations: 3, films: 1, film_seconds: 2.0, cost: 4.0, ..OLD_USAGE };
    assert_eq!(days.iter().map(|day| day.key).collect::<Vec<_>>(), [both, OLD_USAGE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usage_of_an_earlier_version_is_kept() {
    let place = SqlitePlace::new();
    let mut connection = database(place.path(), 11).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
    let count = OLD_COUNT.replace("now()", &now.to_string());
    for _ in 0..2 {
        let count = sqlx::query(sqlx::AssertSqlSafe(count.clone())).bind("2026-01-01");
        count.execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let days = place.open().await.usage("default", "", 9).await.unwrap();
    assert_eq!(days.iter().map(|day| day.tenant).collect::<Vec<_>>(), [OLD_USAGE]);
}

/// The statements of the version with seven migrations: it ends a generation, and finds the generations that it
/// deletes.
const OLD_END: &str =
    "UPDATE generations SET status = 'succeeded', artifacts = '[]', finished_at = $2, expires_at = $2,
     lease_owner = NULL, lease_expires_at = NULL WHERE id = $1";
const OLD_OVERDUE: &str = "SELECT id FROM generations WHERE expires_at <= $1 ORDER BY expires_at, id";

/// While processes are replaced one by one, processes of the previous version delete no generation with a star.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_of_two_versions_share_stars() {
    let Some(place) = PgPlace::new().await else { return };
    let mut old = PgConnection::connect(place.url()).await.unwrap();
    earlier("postgres", 7).await.run(&mut old).await.unwrap();
    let store = place.open_with(Duration::ZERO).await;
    let ids = accept(&*store, 3).await;
    claim(&*store, 3).await;
    let now = time::OffsetDateTime::now_utc();
    for id in &ids {
        sqlx::query(OLD_END).bind(uuid(*id)).bind(now).execute(&mut old).await.unwrap();
    }
    assert!(!get(&*store, ids[0]).await.starred);
    store.star(ids[0], true, 9).await.unwrap().unwrap();
    store.star(ids[1], true, 9).await.unwrap().unwrap();
    store.star(ids[1], false, 9).await.unwrap().unwrap();
    let soon = now + HOUR;
    let found: Vec<Uuid> = sqlx::query_scalar(OLD_OVERDUE).bind(soon).fetch_all(&mut old).await.unwrap();
    assert_eq!(found, [uuid(ids[2]), uuid(ids[1])]);
}

/// Generations of a SQLite file of the version before have no stars, and can get them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_of_an_earlier_version_can_have_stars() {
    let place = SqlitePlace::new();
    let mut connection = database(place.path(), 4).await;
    let events = [EventKind::Queued, EventKind::Started, EventKind::Succeeded];
    let id = insert(&mut connection, "succeeded", 1_700_000_000_000, &events).await;
    connection.close().await.unwrap();
    let store = place.open().await;
    assert!(!get(&*store, id).await.starred);
    assert_eq!(store.overdue_for_deletion(9).await.unwrap().len(), 1);
    store.star(id, true, 1).await.unwrap().unwrap();
    assert!(store.overdue_for_deletion(9).await.unwrap().is_empty());
}

/// A key of a SQLite file of the version before may do what it could.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_earlier_version_have_the_default_terms() {
    let place = SqlitePlace::new();
    let mut connection = database(place.path(), 5).await;
    let create = OLD_CREATE.replace("now()", "1700000000000");
    let create = sqlx::query(sqlx::AssertSqlSafe(create)).bind("before").bind(vec![1_u8; 32]).bind("default");
    create.execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let store = place.open().await;
    let found = store.find_key("before").await.unwrap().unwrap();
    assert_eq!((found.record.terms, found.record.sha256), (KeyTerms::default(), [1; 32]));
    let generation = generation();
    store.accept(&Acceptance { api_key: Some("before"), ..request(&generation) }).await.unwrap();
    assert_eq!(store.usage("default", "before", 9).await.unwrap()[0].key.generations, 1);
}
