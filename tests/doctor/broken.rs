//! Tests of broken set-ups: the doctor names each fault and the mend.

use std::{fs, net::TcpListener, time::Duration};

use axum::{Router, http::header};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::{examination::Setup, postgres::Cluster, s3::S3};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/pipelines");

/// 1
#[test]
fn unknown_settings() {
    let setup = Setup::new();
    let file = setup.data.path().join("latentd.toml");
    fs::write(&file, "[http]\nbnid = \"127.0.0.1:80\"\n").unwrap();
    let path = file.display().to_string();
    let examination = setup.examine_with(&[], &["--config", &path]);
    examination.ends_with(1).finds("error", "settings", "bnid", "config print");
    let setup = Setup::new().set("LATENTD_HTTP__BNID", "127.0.0.1:80");
    setup.examine().ends_with(1).finds("error", "settings", "did you mean LATENTD_HTTP__BIND?", "rename or remove");
    let examination = Setup::new().examine_with(&[], &["--config", "/nowhere/latentd.toml"]);
    examination.ends_with(1).finds("error", "settings", "/nowhere/latentd.toml", "create the file");
}

/// 2
#[test]
fn a_database_that_does_not_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://latentd:swordfish@{closed}/latentd");
    let examination = Setup::new().set("LATENTD_DATABASE__URL", url).examine();
    examination.ends_with(1).finds("error", "database", "refused", "that PostgreSQL runs").hides("swordfish");
}

/// 3
#[test]
fn a_database_that_hangs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://latentd:swordfish@{}/latentd", listener.local_addr().unwrap());
    // The listener's queue takes the connections, and nobody answers.
    let examination = Setup::new().set("LATENTD_DATABASE__URL", url).examine_with(&[], &["--timeout", "2"]);
    examination.ends_with(1).finds("error", "database", "no answer within 2 s", "firewall").hides("swordfish");
}

/// 4
#[tokio::test]
async fn databases_with_an_old_schema_or_without_writes() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.create_database().await;
    let setup = Setup::new().set("LATENTD_DATABASE__URL", &url);
    assert!(setup.run(&[], &["migrate"]).status.success());
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let newest = "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
    connection.execute(newest).await.unwrap();
    let old = Setup::new().set("LATENTD_DATABASE__URL", &url).set("LATENTD_DATABASE__MIGRATE", "false");
    old.examine().ends_with(1).finds("error", "database", "but this program needs", "latentd migrate");

    let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    connection.execute(AssertSqlSafe(read_only)).await.unwrap();
    setup.examine().ends_with(1).finds("error", "database", "refuses writes", "primary server");

    let missing = Setup::new().set("LATENTD_DATABASE__URL", cluster.url("nowhere"));
    missing.examine().ends_with(1).finds("error", "database", "does not exist", "createdb");
}

/// 5
#[tokio::test]
async fn a_sqlite_file_of_a_newer_program_and_a_broken_one() {
    let setup = Setup::new();
    let data = setup.data.path().join("data");
    assert!(setup.run(&[], &["migrate"]).status.success());
    let file = data.join("latentd.db");
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', true, x'00', 0)";
    connection.execute(later).await.unwrap();
    connection.close().await.unwrap();
    setup.examine().ends_with(1).finds("error", "database", "version 9999", "newer program");
    fs::write(&file, vec![7; 8192]).unwrap();
    setup.examine().ends_with(1).finds("error", "database", "not a database", "backup");
}

/// 6
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off() {
    // A store whose clock stands still since 1994.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = || async { [(header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT")] };
    let serving = tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    let setup = Setup::new().set_all(S3::start().settings()).set("LATENTD_BLOBS__ENDPOINT", endpoint);
    let examination = tokio::task::spawn_blocking(move || setup.examine()).await.unwrap();
    examination.ends_with(1).finds("error", "clock", "ahead of the clock of the bucket", "synchronize");
    serving.abort();
}

/// 7
#[test]
fn buckets_with_a_wrong_key_or_a_wrong_name_or_no_server() {
    let mut s3 = S3::start();
    let with = |key: &str, value: &str| Setup::new().set_all(s3.settings()).set(key, value).examine();
    let wrong = with("LATENTD_BLOBS__SECRET_ACCESS_KEY", "swordfish-swordfish");
    wrong.ends_with(1).finds("error", "pictures", "blobs.access_key_id", "blobs.secret_access_key");
    wrong.hides("swordfish");
    let missing = with("LATENTD_BLOBS__URL", "s3://elsewhere");
    missing.ends_with(1).finds("error", "pictures", "NoSuchBucket", "create the bucket");
    let setup = Setup::new().set_all(s3.settings());
    s3.stop();
    setup.examine().ends_with(1).finds("error", "pictures", "blobs.endpoint", "that the store runs");
}

/// 8
#[test]
fn a_data_folder_that_cannot_be_used() {
    let setup = Setup::new();
    let file = setup.data.path().join("file");
    fs::write(&file, "").unwrap();
    let of_file = setup.set("LATENTD_DATA_DIR", file.display());
    of_file.examine().ends_with(1).finds("error", "data_dir", "cannot be written", "set data_dir");
    let inside = of_file.set("LATENTD_DATA_DIR", file.join("below").display());
    inside.examine().ends_with(1).finds("error", "data_dir", "cannot be written", "set data_dir");
}

/// 8, with the database and the pictures elsewhere. Then the folder is needed only for the keys that sign pictures.
#[test]
fn a_data_folder_that_only_the_keys_need() {
    let (setup, s3) = (Setup::new(), S3::start());
    let file = setup.data.path().join("file");
    fs::write(&file, "").unwrap();
    let setup = setup
        .set_all(s3.settings())
        .set("LATENTD_DATABASE__URL", "postgres://127.0.0.1:1/none")
        .set("LATENTD_DATA_DIR", file.join("below").display());
    let level = if cfg!(feature = "provenance") { "error" } else { "warning" };
    setup.examine().finds(level, "data_dir", "cannot be written", "set data_dir");
    let setup = setup.set("LATENTD_PROVENANCE__CREDENTIALS", "false");
    setup.examine().finds("warning", "data_dir", "cannot be written", "set data_dir");
}

/// 9
#[test]
fn models_that_are_missing_or_broken() {
    let setup = Setup::new().set("LATENTD_MODELS__DIR", "/nowhere/models");
    setup.examine().ends_with(1).finds("error", "models", "/nowhere/models", "create the folder");

    let setup = Setup::new();
    let models = setup.data.path().join("models");
    fs::create_dir_all(models.join("broken")).unwrap();
    fs::write(models.join("broken/model_index.json"), "{").unwrap();
    let setup = setup.set("LATENTD_MODELS__DIR", models.display());
    // A server starts without this model.
    setup.examine().ends_with(0).finds("warning", "models", "\"broken\" cannot be used", "complete its files");
    let setup = setup.set("LATENTD_MODELS__DEFAULT", "broken");
    let examination = setup.examine();
    examination.ends_with(1).finds("error", "models", "\"broken\" cannot be used", "complete the files");
    assert_eq!(examination.count("models"), 1, "one finding for one model: {}", examination.text);
    let setup = setup.set("LATENTD_MODELS__DEFAULT", "sd15");
    setup.examine().ends_with(1).finds("error", "models", "\"sd15\"", "that exist: broken, emoji");
}

/// 9, a broken model with the name of the embedded one, which it replaces.
#[test]
fn a_broken_model_that_replaces_the_embedded_one() {
    let setup = Setup::new();
    let models = setup.data.path().join("models");
    for name in ["emoji", "other"] {
        fs::create_dir_all(models.join(name)).unwrap();
        fs::write(models.join(name).join("model_index.json"), "{").unwrap();
    }
    let setup = setup.set("LATENTD_MODELS__DIR", models.display());
    let examination = setup.examine();
    examination.ends_with(1).finds("error", "models", "\"emoji\" cannot be used", "complete the files");
    examination.finds("warning", "models", "\"other\" cannot be used", "complete its files");
    assert_eq!(examination.count("models"), 2, "one finding for each model: {}", examination.text);
    let setup = setup.set("LATENTD_MODELS__DEFAULT", "sd15");
    setup.examine().ends_with(1).finds("error", "models", "\"sd15\"", "that exist: emoji, other");
}

/// 9, a tensor with another shape than the configuration says, which is found without loading weights.
#[test]
fn a_model_whose_tensors_do_not_fit_its_configuration() {
    let setup = Setup::new();
    let models = setup.data.path().join("models");
    copy(&std::path::Path::new(MODELS).join("ddpm"), &models.join("ddpm"));
    let file = models.join("ddpm/unet/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["layers_per_block"] = (config["layers_per_block"].as_u64().unwrap() + 1).into();
    fs::write(&file, config.to_string()).unwrap();
    let setup = setup.set("LATENTD_MODELS__DIR", models.display()).set("LATENTD_MODELS__DEFAULT", "ddpm");
    setup.examine().ends_with(1).finds("error", "models", "\"ddpm\" cannot be used", "complete the files");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// 10
#[test]
fn devices_that_do_not_exist_and_too_many_threads() {
    let setup = Setup::new().set("LATENTD_ENGINE__DEVICES", "cpu:0-4000");
    setup.examine().ends_with(1).finds("error", "devices", "cpu:0-4000", "latentd devices");
    let setup = Setup::new().set("LATENTD_ENGINE__THREADS", "1000");
    setup.examine().ends_with(0).finds("warning", "devices", "1000 compute threads", "engine.threads = 0");
}

/// 11
#[test]
fn a_memory_plan_that_exceeds_the_memory() {
    let setup = Setup::new().set("LATENTD_ENGINE__MAX_BYTES", u64::MAX / 4);
    setup.examine().ends_with(0).finds("warning", "memory", "the plan takes", "engine.max_bytes");
}

/// 12
#[test]
fn ports_of_other_programs() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let address = other.local_addr().unwrap();
    let setup = Setup::new().set("LATENTD_HTTP__BIND", address);
    setup.examine().ends_with(1).finds("error", "ports", "another program listens", "change http.bind");
    let setup = Setup::new().set("LATENTD_OPERATOR__BIND", "192.0.2.1:9090");
    setup.examine().ends_with(1).finds("error", "ports", "192.0.2.1:9090 cannot be used", "an address of this machine");
    let both = Setup::new().set("LATENTD_HTTP__BIND", "127.0.0.1:8080").set("LATENTD_OPERATOR__BIND", "127.0.0.1:8080");
    both.examine().ends_with(1).finds("error", "ports", "are both 127.0.0.1:8080", "different ports");
}

/// 13
#[test]
fn too_few_open_files() {
    let limited = |files: &str| {
        let wrapper = ["sh", "-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")].map(str::to_owned);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        Setup::new().examine_with(&wrapper, &[])
    };
    limited("60").ends_with(1).finds("error", "open files", "needs at least 64", "ulimit");
    limited("500").ends_with(0).finds("warning", "open files", "the limit is 500", "LimitNOFILE");
}

/// 14
#[tokio::test]
async fn replicas_without_shared_secrets() {
    let Some(cluster) = Cluster::shared() else { return };
    let setup = Setup::new()
        .set("LATENTD_DATABASE__URL", cluster.create_database().await)
        .set("LATENTD_OPERATOR__BIND", "0.0.0.0:0")
        .set("LATENTD_AUTH__REQUIRED", "true");
    let examination = setup.examine();
    examination.ends_with(0).finds("warning", "secrets", "operator.token is empty", "LATENTD_OPERATOR__TOKEN");
    examination.finds("warning", "secrets", "http.url_secret is empty", "LATENTD_HTTP__URL_SECRET");
    examination.finds("warning", "pictures", "data_dir of its own machine", "set blobs.url");

    let setup = Setup::new().set("LATENTD_OPERATOR__BIND", "0.0.0.0:0").set("LATENTD_AUTH__REQUIRED", "true");
    let data = setup.data.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("operator.token"), "\n").unwrap();
    fs::write(data.join("url.secret"), "short").unwrap();
    let examination = setup.examine();
    examination.ends_with(1).finds("error", "secrets", "operator.token is empty", "delete the file");
    examination.finds("error", "secrets", "fewer than 16 bytes", "delete the file");
}

/// A bucket that never answers does not keep the doctor from ending.
#[test]
fn a_bucket_that_hangs() {
    let s3 = S3::start();
    s3.set_mode(crate::s3::Mode::Hang);
    let setup = Setup::new().set_all(s3.settings());
    let examination = setup.examine_with(&[], &["--timeout", "2"]);
    examination.ends_with(1).finds("error", "pictures", "no answer within 2 s", "firewall");
    s3.set_mode(crate::s3::Mode::Slow(Duration::ZERO));
    setup.examine().ends_with(0);
}
