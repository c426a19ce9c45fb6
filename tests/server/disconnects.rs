//! Tests that a cancel or a disconnect of the client stops the work within a step.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Server, request, with};

/// A request that takes longer than any test.
fn endless() -> serde_json::Value {
    with(request("a panda", 1), &json!({"steps": 1000, "n": 8}))
}

#[tokio::test]
async fn a_canceled_generation_stops() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = server.accept(&endless()).await;
    server.until("it denoises", async |server: &Server| server.metric("latentd_steps_total", "").await > 32.0).await;
    let cancel = || server.client.post(server.url(&format!("/v1/images/{id}/cancel"))).send();
    assert_eq!(cancel().await.unwrap().status(), 202);
    assert_eq!(server.ended(&id).await["status"], "canceled");
    assert_eq!(cancel().await.unwrap().status(), 200, "canceling twice is no error");
    assert_work_has_stopped(&server, "canceled").await;
}

#[tokio::test]
async fn a_client_that_disconnects_stops_the_work() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let one = with(endless(), &json!({"n": 1}));
    for accept in ["image/png", "text/event-stream"] {
        let waiting = server.client.post(server.url("/v1/images")).header("Accept", accept).json(&one).send();
        let client = tokio::spawn(async move {
            let mut response = waiting.await.unwrap();
            while response.chunk().await.unwrap().is_some() {}
        });
        let before = server.metric("latentd_steps_total", "").await;
        server
            .until("it denoises", async |server: &Server| server.metric("latentd_steps_total", "").await > before + 8.0)
            .await;
        client.abort();
        server
            .until("it is canceled", async |server: &Server| {
                server.json("/v1/images?limit=1").await["data"][0]["status"] == "canceled"
            })
            .await;
    }
    assert_work_has_stopped(&server, "disconnected").await;
}

#[tokio::test]
async fn a_client_can_disconnect_and_keep_its_generation() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let body = with(request("a rocket", 5), &json!({"steps": 60, "on_disconnect": "keep"}));
    let waiting = server.client.post(server.url("/v1/images")).header("Accept", "image/png").json(&body).send();
    let client = tokio::spawn(waiting);
    server.until("it runs", async |server: &Server| server.metric("latentd_steps_total", "").await > 2.0).await;
    client.abort();
    let id = server.json("/v1/images?limit=1").await["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.ended(&id).await["status"], "succeeded");
}

/// Asserts that all computed steps are counted as wasted and that no further steps are computed.
async fn assert_work_has_stopped(server: &Server, reason: &str) {
    let steps = server.metric("latentd_steps_total", "").await;
    let wasted = server.metric("latentd_wasted_steps_total", &format!("reason=\"{reason}\"")).await;
    assert_eq!(wasted, steps, "not all computed steps are counted as wasted");
    // A run that had not stopped would compute dozens of steps in this time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.metric("latentd_steps_total", "").await, steps);
}
