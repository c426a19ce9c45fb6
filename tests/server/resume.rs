//! A generation that was running goes on where its process ended, and its picture is the one that it would have been.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{Server, request, with};

/// So often that a test need not wait.
const OFTEN: [(&str, &str); 1] = [("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", "1")];

fn long() -> Value {
    with(request("a red fox", 11), &json!({"steps": 150, "n": 2, "scheduler": "dpmpp_2m_sde"}))
}

/// The files of logs below the data folder.
fn parts(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { parts(&path) } else { vec![path] }).collect()
}

fn logs(data: &Path) -> Vec<std::path::PathBuf> {
    let of_logs = |path: &std::path::PathBuf| path.components().any(|part| part.as_os_str() == "run");
    parts(data).into_iter().filter(of_logs).collect()
}

/// A server with the generation at work and some of its log stored.
async fn at_work(data: &Path) -> (Server, String) {
    let server = Server::start(data, &OFTEN).await;
    let id = server.accept(&long()).await;
    server.until("some of the log is stored", async |_: &Server| logs(data).len() > 8).await;
    (server, id)
}

async fn undisturbed() -> [Vec<u8>; 2] {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&long()).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    [server.picture(&id, 0).await, server.picture(&id, 1).await]
}

/// The generation ends as it would have, on this many answers of earlier attempts at least.
async fn goes_on(data: &Path, id: &str, least: f64) -> Server {
    let server = Server::start(data, &OFTEN).await;
    let ended = server.ended(id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let replayed = server.metric("latentd_replayed_steps_total", "").await;
    println!("{replayed} of 600 rows were replayed");
    assert!(replayed >= least, "{replayed} rows were replayed");
    let computed = server.metric("latentd_steps_total", "").await;
    assert_eq!(replayed + computed, 600.0, "each row was computed here or before");
    assert!([server.picture(id, 0).await, server.picture(id, 1).await] == undisturbed().await);
    server.until("what is over has no log", async |_: &Server| logs(data).is_empty()).await;
    server
}

#[tokio::test]
async fn after_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let (server, id) = at_work(data.path()).await;
    server.kill();
    goes_on(data.path(), &id, 4.0).await;
}

#[tokio::test]
async fn after_a_request_to_stop() {
    let data = tempfile::tempdir().unwrap();
    let (server, id) = at_work(data.path()).await;
    let computed = server.metric("latentd_steps_total", "").await;
    assert!(server.terminate().success());
    // Not even the steps since the last part are computed again.
    goes_on(data.path(), &id, computed).await;
}

#[tokio::test]
async fn on_what_is_whole_of_a_broken_log() {
    let data = tempfile::tempdir().unwrap();
    let (server, id) = at_work(data.path()).await;
    server.kill();
    for (i, path) in logs(data.path()).into_iter().enumerate() {
        let mut file = fs::read(&path).unwrap();
        let middle = file.len() / 2;
        match i % 3 {
            0 => file[middle] ^= 1,
            1 => file.truncate(middle),
            _ => file.clear(),
        }
        fs::write(path, file).unwrap();
    }
    goes_on(data.path(), &id, 0.0).await;
}
