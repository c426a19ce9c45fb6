//! Tests that no accepted generation is lost by kills, stops or aborts, and that full queues refuse requests.

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Server, request, with};

#[tokio::test]
async fn twenty_accepted_generations_survive_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let few = [("LATENTD_ENGINE__MAX_RUNS", "4")];
    let server = Server::start(data.path(), &few).await;
    let mut ids = Vec::new();
    for seed in 0..20 {
        ids.push(server.accept(&with(request("a red fox", seed), &json!({"steps": 30}))).await);
    }
    server
        .until("some are done and some are running", async |server: &Server| {
            server.metric("latentd_steps_total", "").await > 100.0
        })
        .await;
    server.kill();

    let server = Server::start(data.path(), &few).await;
    let ended = join_all(ids.iter().map(|id| server.ended(id))).await;
    for (id, generation) in ids.iter().zip(&ended) {
        assert_eq!(generation["status"], "succeeded", "{generation}");
        server.picture(id, 0).await;
        let events = server.get(&format!("/v1/images/{id}/events")).await.text().await.unwrap();
        assert_eq!(events.matches("event: generation.succeeded").count(), 1, "{events}");
    }
    let listed = server.json("/v1/images?limit=100").await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 20, "the list has each generation once");
    // An interrupted generation draws the same picture as an uninterrupted one.
    let again = server.accept(&with(request("a red fox", 19), &json!({"steps": 30}))).await;
    server.ended(&again).await;
    assert_eq!(server.picture(&again, 0).await, server.picture(&ids[19], 0).await);
}

#[tokio::test]
async fn a_terminated_server_requeues_its_generations() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&with(request("a panda", 3), &json!({"steps": 200, "n": 4}))).await;
    server.until("it denoises", async |server: &Server| server.metric("latentd_steps_total", "").await > 8.0).await;
    assert!(server.terminate().success());

    let server = Server::start(data.path(), &[]).await;
    let generation = server.json(&format!("/v1/images/{id}")).await;
    assert_eq!(
        generation["attempt"].as_u64().unwrap(),
        if generation["status"] == "queued" { 0 } else { 1 },
        "a requeue is not a failed attempt: {generation}"
    );
    assert_eq!(server.ended(&id).await["status"], "succeeded");
}

#[tokio::test]
async fn a_full_queue_refuses_before_any_work() {
    let data = tempfile::tempdir().unwrap();
    let server =
        Server::start(data.path(), &[("LATENTD_QUEUE__MAX_QUEUED", "2"), ("LATENTD_ENGINE__MAX_RUNS", "1")]).await;
    let long = with(request("a panda", 1), &json!({"steps": 800, "n": 4}));
    let running = server.accept(&long).await;
    server
        .until("it runs", async |server: &Server| {
            server.json(&format!("/v1/images/{running}")).await["status"] == "running"
        })
        .await;
    server.accept(&long).await;
    let last = server.accept(&long).await;
    let refused = server.post(&long).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=600).contains(&after));
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "queue_full");
    let view = server.json(&format!("/v1/images/{last}")).await;
    assert_eq!(view["queue"]["position"], 1, "{view}");
}

#[tokio::test]
async fn late_generations_expire_and_old_ones_are_deleted() {
    let data = tempfile::tempdir().unwrap();
    let settings = [
        ("LATENTD_ENGINE__MAX_RUNS", "1"),
        ("LATENTD_RETENTION__FINISHED_S", "1"),
        ("LATENTD_RETENTION__SWEEP_INTERVAL_S", "0.2"),
    ];
    let server = Server::start(data.path(), &settings).await;
    let long = server.accept(&with(request("a panda", 1), &json!({"steps": 900, "n": 8}))).await;
    server
        .until("it runs", async |server: &Server| {
            server.json(&format!("/v1/images/{long}")).await["status"] == "running"
        })
        .await;
    let late = server.accept(&with(request("a fox", 1), &json!({"start_timeout_s": 1}))).await;
    assert_eq!(server.ended(&late).await["status"], "expired");
    server
        .until("the expired one is erased", async |server: &Server| {
            server.get(&format!("/v1/images/{late}")).await.status() == StatusCode::NOT_FOUND
        })
        .await;
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let _first = Server::start(data.path(), &[]).await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_latentd"))
        .arg("serve")
        .env("LATENTD_DATA_DIR", data.path())
        .env("LATENTD_HTTP__BIND", "127.0.0.1:0")
        .env("LATENTD_OPERATOR__BIND", "127.0.0.1:0")
        .output()
        .unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("another process"), "{text}");
}

/// The test writes the file that the abort handler leaves in the data folder: the bytes of the id, then the fence.
#[tokio::test]
async fn a_generation_that_aborted_its_process_does_not_run_again() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let long = with(request("a panda", 1), &json!({"steps": 60, "n": 2}));
    let (poison, other) = (server.accept(&long).await, server.accept(&long).await);
    server
        .until("both run", async |server: &Server| server.metric("latentd_generations_running", "").await == 2.0)
        .await;
    server.kill();
    let id: latentd::generation::GenerationId = poison.parse().unwrap();
    let left = [&id.as_bytes()[..], &1i64.to_le_bytes()].concat();
    std::fs::write(data.path().join("latentd.aborted"), left).unwrap();

    let server = Server::start(data.path(), &[]).await;
    let given_up = server.ended(&poison).await;
    assert_eq!((&given_up["status"], &given_up["error"]["code"]), (&json!("failed"), &json!("worker_crashed")));
    assert!(given_up["error"]["message"].as_str().unwrap().contains("aborted"), "{given_up}");
    assert_eq!(given_up["attempt"], 1);
    let dead = server.get_operator("/admin/generations?dead=true").await.json::<serde_json::Value>().await.unwrap();
    assert_eq!((dead["data"].as_array().unwrap().len(), &dead["data"][0]["id"]), (1, &json!(poison)));
    assert_eq!(server.ended(&other).await["status"], "succeeded");
    // The server has cleared the file, so the next process does not handle it again.
    assert_eq!(std::fs::metadata(data.path().join("latentd.aborted")).unwrap().len(), 0);
    assert!(server.terminate().success());
}
