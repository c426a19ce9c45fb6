//! Tests of starting on the data folder of an earlier version. The version with four migrations wrote
//! `tests/fixtures/upgrade` and was killed while one generation ran and another waited. The database is stored as SQL.

use std::{fs, path::Path};

use sqlx::{AssertSqlSafe, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::harness::Server;

const FINISHED: &str = "img_01m8hajnvze6n92yrkh3nqy71m";
const RUNNING: &str = "img_01m8hajp5ter38jbr5xnf22tvy";
const QUEUED: &str = "img_01m8hajp6we6vtgc0dafax5s26";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// A copy of the data folder, with all expiry times and deadlines moved to one hour from now.
async fn data_folder_of_an_earlier_version(fixture: &Path) -> TempDir {
    let data = tempfile::tempdir().unwrap();
    copy(&fixture.join("blobs"), &data.path().join("blobs"));
    let options = SqliteConnectOptions::new().filename(data.path().join("latentd.db")).create_if_missing(true);
    // The dump refers to tables before it creates them.
    let options = options.foreign_keys(false);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let dump = fs::read_to_string(fixture.join("latentd.sql")).unwrap();
    sqlx::raw_sql(AssertSqlSafe(dump)).execute(&mut connection).await.unwrap();
    let soon = 1000 * (time::OffsetDateTime::now_utc().unix_timestamp() + 3600);
    for times in ["expires_at = ?1 WHERE expires_at", "start_deadline = ?1 WHERE start_deadline"] {
        let postponed = AssertSqlSafe(format!("UPDATE generations SET {times} IS NOT NULL"));
        sqlx::query(postponed).bind(soon).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    data
}

#[tokio::test]
async fn generations_of_an_earlier_version_are_kept_and_finished() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/upgrade");
    let data = data_folder_of_an_earlier_version(&fixture).await;
    let server = Server::start(data.path(), &[]).await;

    let finished = server.json(&format!("/v1/images/{FINISHED}")).await;
    assert_eq!(finished["status"], "succeeded");
    let images = finished["images"].as_array().unwrap();
    let seeds: Vec<_> = images.iter().map(|image| (&image["seed"], &image["width"], &image["content_type"])).collect();
    let (png, side) = (&"image/png".into(), &64.into());
    assert_eq!(seeds, [(&7.into(), side, png), (&8.into(), side, png)]);
    for index in 0..2 {
        let stored = fs::read(fixture.join(format!("blobs/img/{FINISHED}/1/{index}.png"))).unwrap();
        assert!(server.picture(FINISHED, index).await == stored);
        let named = server.get(&format!("/v1/images/{FINISHED}/content/{index}.png")).await;
        assert_eq!(named.headers()["content-type"], "image/png");
        assert!(named.bytes().await.unwrap() == stored);
    }

    // The running and the queued generation draw the same pictures as the same requests sent to this version.
    for (id, attempt) in [(RUNNING, 2), (QUEUED, 1)] {
        let ended = server.ended(id).await;
        assert_eq!((&ended["status"], &ended["attempt"]), (&"succeeded".into(), &attempt.into()), "{ended}");
        let again = server.accept(&ended["params"]).await;
        assert_eq!(server.ended(&again).await["status"], "succeeded");
        assert!(server.picture(id, 0).await == server.picture(&again, 0).await);
    }
}
