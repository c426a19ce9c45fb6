//! Tests of SQLite faults: killed processes, locked folders, corrupt rows, full disks and rolled back transactions.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use latentd::generation::{EventKind, GenerationId, Problem, Status};
use latentd::ledger::{Claims, Heartbeat, Ledger, ListQuery, Outcome, StoreError};
use sqlx::{Connection, Executor, SqliteConnection};

use crate::place::{
    self, HOUR, LAST, Place, SqlitePlace, accept, accept_one, artifact, claim, claim_one, crew, generation, get,
    history, reap_all,
};

const CHILD_DIR: &str = "LATENTD_TEST_LEDGER_DIR";

/// The test starts itself as a child process with a folder in its environment. The child works in the folder until the
/// test kills it, and prints each acknowledged change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_acknowledged_change() {
    if let Some(dir) = env::var_os(CHILD_DIR) {
        work_until_killed(Path::new(&dir)).await;
    }
    let place = SqlitePlace::new();
    let mut acknowledged = HashMap::new();
    for lines in [1, 3, 10, 31, 100, 101, 102] {
        for (word, id) in kill_after(lines, place.path()) {
            acknowledged.insert(id, word);
        }
        let store = place.open().await;
        for (id, word) in &acknowledged {
            let record = get(&*store, *id).await;
            if word == "finished" {
                assert_eq!(record.status, Status::Succeeded { artifacts: vec![artifact()] });
                assert_eq!(history(&*store, *id).await.last(), Some(&EventKind::Succeeded));
            }
            assert_eq!(record.job, generation());
        }
        let listed = store.list(&ListQuery { limit: usize::MAX, ..ListQuery::default() }).await.unwrap();
        for record in listed.records {
            let last = match record.status {
                Status::Queued => [EventKind::Queued, EventKind::Retrying],
                Status::Running => [EventKind::Started; 2],
                _ => [EventKind::Succeeded; 2],
            };
            assert!(last.contains(history(&*store, record.id).await.last().unwrap()));
        }
        reap_all(&*store, u32::MAX).await;
        assert_eq!(integrity(place.path()).await, "ok");
    }
    assert!(acknowledged.values().any(|word| word == "finished"));
}

async fn work_until_killed(dir: &Path) {
    let store = Ledger::open_sqlite(dir, HOUR).await.unwrap();
    println!();
    loop {
        let id = accept_one(&store, &generation()).await;
        println!("accepted {id}");
        let id = accept_one(&store, &generation()).await;
        println!("accepted {id}");
        for (record, lease) in claim(&store, 1).await {
            store.finish(lease, Outcome::Succeeded(vec![artifact()])).await.unwrap().unwrap();
            println!("finished {}", record.id);
        }
    }
}

/// Starts the child process and kills it after it has printed `lines` changes. Returns all changes that the child
/// printed before it died.
fn kill_after(lines: usize, dir: &Path) -> Vec<(String, GenerationId)> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "faults::a_killed_process_loses_no_acknowledged_change"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        // The last line may be cut off.
        if let Some((word @ ("accepted" | "finished"), id)) = line.trim_end().split_once(' ')
            && line.ends_with('\n')
        {
            acknowledged.push((word.to_owned(), id.parse().unwrap()));
            if acknowledged.len() == lines {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= lines, "the child ended by itself");
    acknowledged
}

#[tokio::test]
async fn a_folder_has_one_store_at_a_time() {
    let place = SqlitePlace::new();
    let folder = place.path().join("a/b");
    let store = Ledger::open_sqlite(&folder, HOUR).await.unwrap();
    let second = Ledger::open_sqlite(&folder, HOUR).await;
    assert!(matches!(&second, Err(StoreError::Locked { path }) if *path == folder), "{second:?}");
    let clone = store.clone();
    drop(store);
    assert!(matches!(Ledger::open_sqlite(&folder, HOUR).await, Err(StoreError::Locked { .. })));
    drop(clone);
    Ledger::open_sqlite(&folder, HOUR).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_created_is_an_error() {
    let place = SqlitePlace::new();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(Ledger::open_sqlite(&file.join("data"), HOUR).await, Err(StoreError::Io(_))));
}

#[tokio::test]
async fn an_unreadable_row_does_not_affect_others() {
    let place = SqlitePlace::new();
    let store = place.open_with(Duration::ZERO).await;
    let ids = accept(&*store, 4).await;
    store.cancel(ids[0]).await.unwrap();
    store.cancel(ids[1]).await.unwrap();
    for id in [ids[0], ids[2]] {
        let sql = format!("UPDATE generations SET params = '{{}}' WHERE id = x'{}'", hexadecimal(id));
        database(place.path()).await.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        let read = store.get(id).await;
        assert!(matches!(read, Err(StoreError::Corrupt { id: which, what: "params", .. }) if which == id), "{read:?}");
    }
    let page = store.list(&ListQuery { limit: 2, ..ListQuery::default() }).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.id).collect::<Vec<_>>(), [ids[3], ids[1]]);
    assert!(!page.has_more);
    let overdue = store.overdue_for_deletion(1).await.unwrap();
    assert_eq!(overdue.iter().map(|record| record.id).collect::<Vec<_>>(), [ids[1]]);
    let claimed = claim(&*store, 2).await;
    assert_eq!(place::ids(&claimed), [ids[3]]);
    assert_eq!(history(&*store, ids[2]).await, [EventKind::Queued, EventKind::Started, EventKind::Failed]);
    assert_eq!(reap_all(&*store, 3).await.queued, [ids[3]]);
}

#[tokio::test]
async fn a_claim_stores_the_owner_and_the_end_of_the_lease() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    let mut expected = vec![];
    for name in ["one", "two"] {
        accept(&*store, 1).await;
        let claimed = store.claim(&place::worker(name), 1, true).await.unwrap();
        expected.push((Some(name.to_owned()), claimed[0].0.started_at.unwrap() + HOUR));
    }
    let leases = "SELECT lease_owner, lease_expires_at FROM generations ORDER BY id";
    let rows: Vec<(Option<String>, i64)> =
        sqlx::query_as(leases).fetch_all(&mut database(place.path()).await).await.unwrap();
    let leases = rows.into_iter().map(|(owner, ms)| {
        (owner, time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap())
    });
    assert_eq!(leases.collect::<Vec<_>>(), expected);
    reap_all(&*store, 2).await;
    reap_all(&*store, 1).await;
    claim(&*store, 1).await;
    reap_all(&*store, 2).await;
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM generations WHERE lease_owner IS NOT NULL OR lease_expires_at IS NOT NULL",
    )
    .fetch_one(&mut database(place.path()).await)
    .await
    .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_worker_without_a_heartbeat_for_an_hour_is_removed() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    for name in ["gone", "here"] {
        let models = vec!["tiny".to_owned()];
        let beat = Heartbeat { worker: name.to_owned(), version: String::new(), models, running: 0, speed: Some(1.0) };
        store.heartbeat(&beat).await.unwrap();
    }
    let mut database = database(place.path()).await;
    database.execute("UPDATE workers SET beaten_at = beaten_at - 3600001 WHERE id = 'gone'").await.unwrap();
    let workers = store.workers().await.unwrap();
    assert_eq!(workers.iter().map(|worker| worker.heartbeat.worker.as_str()).collect::<Vec<_>>(), ["here"]);
    assert_eq!(store.workload(&LAST, &crew(Duration::from_secs(60), 0)).await.unwrap().speed, 1.0);
    store.purge().await.unwrap();
    let left: Vec<String> = sqlx::query_scalar("SELECT id FROM workers").fetch_all(&mut database).await.unwrap();
    assert_eq!(left, ["here"]);
}

#[tokio::test]
async fn a_row_with_a_wrong_problem_is_corrupt() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    accept(&*store, 1).await;
    let (record, lease) = claim_one(&*store).await;
    let problem = Problem { code: "internal".to_owned(), message: String::new(), retryable: false };
    store.finish(lease, Outcome::Failed(problem)).await.unwrap();
    database(place.path()).await.execute("UPDATE generations SET problem = '[]'").await.unwrap();
    let read = store.get(record.id).await;
    assert!(matches!(read, Err(StoreError::Corrupt { what: "problem", .. })), "{read:?}");
}

#[tokio::test]
async fn a_full_disk_refuses_generations_until_there_is_room() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    let before = accept(&*store, 1).await;
    let mut database = database(place.path()).await;
    // SQLite returns the error of a full disk if a table with AUTOINCREMENT has no row id left.
    let full = "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT);
                INSERT INTO sqlite_sequence VALUES ('counted', 9223372036854775807);
                CREATE TRIGGER full BEFORE INSERT ON generations BEGIN INSERT INTO counted (id) VALUES (NULL); END";
    database.execute(full).await.unwrap();
    let job = generation();
    for _ in 0..3 {
        let refused = store.accept(&place::request(&job)).await;
        assert!(matches!(refused, Err(StoreError::StorageFull)), "{refused:?}");
    }
    database.execute("DROP TRIGGER full").await.unwrap();
    let after = accept(&*store, 1).await;
    let claimed = claim(&*store, 9).await;
    assert_eq!(place::ids(&claimed), [before, after].concat());
}

/// A failing disk during a write or commit has the same effect.
#[tokio::test]
async fn the_store_continues_after_sqlite_rolled_back_a_transaction() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    let mut database = database(place.path()).await;
    let undo = "CREATE TRIGGER undo BEFORE INSERT ON generation_events BEGIN SELECT RAISE(ROLLBACK, 'undone'); END";
    database.execute(undo).await.unwrap();
    let job = generation();
    for _ in 0..3 {
        let undone = store.accept(&place::request(&job)).await;
        assert!(matches!(undone, Err(StoreError::Database(_))), "{undone:?}");
    }
    database.execute("DROP TRIGGER undo").await.unwrap();
    let kept = accept(&*store, 1).await;
    assert_eq!(place::ids(&claim(&*store, 9).await), kept);
}

async fn database(dir: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}", dir.join("latentd.db").display())).await.unwrap()
}

async fn integrity(dir: &Path) -> String {
    sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut database(dir).await).await.unwrap()
}

fn hexadecimal(id: GenerationId) -> String {
    id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
