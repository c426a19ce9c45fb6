//! A generation that was running when its server ended goes on where it was.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Server, request, with};

const OFTEN: [(&str, &str); 1] = [("LATENTD_ENGINE__CHECKPOINT_INTERVAL_MS", "1")];
/// Two pictures, guided.
const ROWS: f64 = 200.0 * 4.0;

fn long() -> Value {
    with(request("a red fox", 5), &json!({"steps": 200, "n": 2, "scheduler": "dpmpp_2m", "guidance_scale": 5.0}))
}

/// The parts of a generation's log, in the order of their numbers.
fn parts(data: &Path, id: &str) -> Vec<PathBuf> {
    let log = data.join("blobs/run").join(id);
    let attempts = std::fs::read_dir(log).into_iter().flatten().map(|attempt| attempt.unwrap().path());
    let mut parts: Vec<(usize, PathBuf)> = attempts
        .flat_map(|attempt| std::fs::read_dir(attempt).unwrap())
        .map(|part| part.unwrap().path())
        .filter_map(|part| Some((part.file_name()?.to_str()?.parse().ok()?, part)))
        .collect();
    parts.sort_unstable();
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Ends it with the server as soon as `enough` parts of its log are there. Returns its id and the steps that were computed.
async fn interrupted(data: &Path, enough: usize, end: fn(Server)) -> (String, f64) {
    let server = Server::start(data, &OFTEN).await;
    let id = server.accept(&long()).await;
    server.until("it has a log", async |_| parts(data, &id).len() >= enough).await;
    let computed = server.metric("latentd_steps_total", "").await;
    end(server);
    assert!(parts(data, &id).len() >= enough, "it was in the middle");
    (id, computed)
}

/// Starts the server again. Returns the steps that were not computed again.
async fn resumed(data: &Path, id: &str) -> f64 {
    let server = Server::start(data, &OFTEN).await;
    let ended = server.ended(id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let replayed = server.metric("latentd_replayed_steps_total", "").await;
    assert_eq!(replayed + server.metric("latentd_steps_total", "").await, ROWS, "none is computed twice");
    let undisturbed = server.accept(&long()).await;
    server.ended(&undisturbed).await;
    for index in 0..2 {
        assert!(server.picture(id, index).await == server.picture(&undisturbed, index).await, "picture {index}");
    }
    assert_eq!(server.metric("latentd_replayed_steps_total", "").await, replayed, "nothing disturbed that one");
    for id in [id, &undisturbed] {
        server.until("its log is erased", async |_| !data.join("blobs/run").join(id).exists()).await;
    }
    replayed
}

#[tokio::test]
async fn a_killed_server_goes_on_from_its_last_part() {
    let data = tempfile::tempdir().unwrap();
    let (id, _) = interrupted(data.path(), 5, Server::kill).await;
    assert!(resumed(data.path(), &id).await >= 5.0 * 4.0, "each part holds a step at least");
}

#[tokio::test]
async fn a_terminated_server_repeats_nothing() {
    let data = tempfile::tempdir().unwrap();
    let (id, computed) = interrupted(data.path(), 5, |server| assert!(server.terminate().success())).await;
    assert!(resumed(data.path(), &id).await >= computed);
}

#[tokio::test]
async fn a_broken_part_costs_time_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let (id, _) = interrupted(data.path(), 5, Server::kill).await;
    let parts = parts(data.path(), &id);
    let mut flipped = std::fs::read(&parts[1]).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(&parts[1], flipped).unwrap();
    let truncated = std::fs::read(&parts[3]).unwrap();
    std::fs::write(&parts[3], &truncated[..truncated.len() - 1]).unwrap();
    // Behind 54 bytes of head every ask begins with its rows and their values, four bytes each.
    let first = std::fs::read(&parts[0]).unwrap();
    let values = u32::from_le_bytes(first[58..62].try_into().unwrap()) as usize;
    let rows = (first.len() / (4 * values)) as f64;
    let replayed = resumed(data.path(), &id).await;
    assert_eq!(replayed, rows, "the first part alone");
}
