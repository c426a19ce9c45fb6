//! Tests that an interrupted generation resumes from its log and draws the same pictures as without the interruption.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{Server, request, with};

/// Stores parts of the log so often that tests do not have to wait for them.
const OFTEN: [(&str, &str); 1] = [("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", "1")];

fn long() -> Value {
    with(request("a red fox", 11), &json!({"steps": 150, "n": 2, "scheduler": "dpmpp_2m_sde"}))
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The files of logs below the data folder.
fn logs(data: &Path) -> Vec<std::path::PathBuf> {
    let of_logs = |path: &std::path::PathBuf| path.components().any(|part| part.as_os_str() == "run");
    files_below(data).into_iter().filter(of_logs).collect()
}

/// Starts a server and a generation, and waits until some of the log is stored.
async fn start_with_stored_log(data: &Path) -> (Server, String) {
    let server = Server::start(data, &OFTEN).await;
    let id = server.accept(&long()).await;
    server.until("some of the log is stored", async |_: &Server| logs(data).len() > 8).await;
    (server, id)
}

async fn pictures_without_interruption() -> [Vec<u8>; 2] {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&long()).await;
    assert_eq!(server.ended(&id).await["status"], "succeeded");
    [server.picture(&id, 0).await, server.picture(&id, 1).await]
}

/// Restarts the server and asserts that the generation draws the pictures of an uninterrupted run, and that at least
/// `least` rows come from the log.
async fn assert_resumes(data: &Path, id: &str, least: f64) -> Server {
    let server = Server::start(data, &OFTEN).await;
    let ended = server.ended(id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let replayed = server.metric("latentd_replayed_steps_total", "").await;
    println!("{replayed} of 600 rows were replayed");
    assert!(replayed >= least, "{replayed} rows were replayed");
    let computed = server.metric("latentd_steps_total", "").await;
    assert_eq!(replayed + computed, 600.0, "each row was computed here or before");
    assert!([server.picture(id, 0).await, server.picture(id, 1).await] == pictures_without_interruption().await);
    server.until("what is over has no log", async |_: &Server| logs(data).is_empty()).await;
    server
}

#[tokio::test]
async fn a_generation_resumes_after_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let (server, id) = start_with_stored_log(data.path()).await;
    server.kill();
    assert_resumes(data.path(), &id, 4.0).await;
}

#[tokio::test]
async fn a_generation_resumes_after_a_stop() {
    let data = tempfile::tempdir().unwrap();
    let (server, id) = start_with_stored_log(data.path()).await;
    let computed = server.metric("latentd_steps_total", "").await;
    assert!(server.terminate().success());
    // A stop also stores the calls since the last part of the log, so no complete call is computed again. A call has
    // four rows. On a slow machine they are in several batches, so the last call may be incomplete.
    assert_resumes(data.path(), &id, 4.0 * (computed / 4.0).floor()).await;
}

#[tokio::test]
async fn a_generation_resumes_from_the_intact_parts_of_a_broken_log() {
    let data = tempfile::tempdir().unwrap();
    let (server, id) = start_with_stored_log(data.path()).await;
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
    assert_resumes(data.path(), &id, 0.0).await;
}
