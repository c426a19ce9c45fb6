//! Tests of set-ups without faults.

use std::{collections::BTreeMap, fs, path::Path};

use sqlx::{Connection, Executor};

use crate::{
    examination::Setup,
    postgres::Cluster,
    s3::S3,
    server::{Launch, Server},
};

/// The files of a folder and its subfolders, with their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => drop(found.insert(path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    found
}

#[test]
fn the_defaults_are_healthy_and_nothing_is_created() {
    let setup = Setup::new();
    let examination = setup.examine();
    examination.ends_with(0);
    for check in ["settings", "database", "clock", "data_dir", "pictures", "models", "devices", "memory", "ports"] {
        assert!(examination.text.contains(&format!(" {check}: ")), "{check}: {}", examination.text);
    }
    assert!(!setup.data.path().join("data").exists(), "the doctor makes no folder");
}

#[test]
fn the_default_model_is_loaded_if_asked() {
    let examination = Setup::new().examine_with(&[], &["--load"]);
    examination.ends_with(0);
    assert!(examination.text.contains("were loaded"), "{}", examination.text);
}

#[tokio::test]
async fn a_site_with_postgresql_and_a_bucket_is_healthy() {
    let Some(cluster) = Cluster::shared() else { return };
    let (url, s3) = (cluster.create_database().await, S3::start());
    let setup = Setup::new()
        .set_all(s3.settings())
        .set("LATENTD_DATABASE__URL", &url)
        .set("LATENTD_OPERATOR__TOKEN", "correct horse battery")
        .set("LATENTD_AUTH__REQUIRED", "true")
        .set("LATENTD_HTTP__URL_SECRET", "staple staple staple");
    setup.examine().ends_with(0);
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0, "the doctor creates no tables");

    assert!(setup.run(&[], &["migrate"]).status.success());
    let examination = setup.examine();
    examination.ends_with(0).hides("correct horse battery").hides("staple staple").hides("0123456789");
    assert!(examination.text.contains("agrees with the clock of PostgreSQL"), "{}", examination.text);
    assert!(examination.text.contains("agrees with the clock of the bucket"), "{}", examination.text);
    assert_eq!(files(&s3.bucket()), BTreeMap::new(), "the probe is erased");
    let warned = examination.report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .any(|finding| finding["check"] == "secrets" && finding["level"] != "ok");
    assert!(!warned, "{}", examination.text);

    // A newer schema is accepted while processes are replaced.
    connection
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', true, '', 0)",
        )
        .await
        .unwrap();
    setup.examine().ends_with(0).finds("warning", "database", "version 9999", "newer program");
}

#[tokio::test]
async fn a_running_server_is_recognized_and_not_disturbed() {
    let setup = Setup::new();
    let data = setup.data.path().join("data");
    let server = Server::start_ready(&Launch::on(&data)).await;
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let (public, operator) = (address(&server.public), address(&server.operator));
    let id = server.accept(&serde_json::json!({"prompt": "a red fox", "steps": 1, "size": "64x64"})).await;
    server.ended(&id).await;
    let picture = server.picture(&id, 0).await;
    let setup = setup.set("LATENTD_HTTP__BIND", public).set("LATENTD_OPERATOR__BIND", operator);
    let examination = tokio::task::spawn_blocking(move || (setup.examine(), setup)).await.unwrap();
    examination.0.ends_with(0);
    assert_eq!(examination.0.text.matches("a latentd server listens").count(), 2, "{}", examination.0.text);
    assert!(server.picture(&id, 0).await == picture);
}
