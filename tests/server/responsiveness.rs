//! Tests that the server answers while all cores draw.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Server, request, with};

/// The number of pairs of requests within one step of a run, more than a page that watches the queue sends.
const QUESTIONS: usize = 20;

#[tokio::test]
async fn requests_are_answered_between_two_steps_of_a_run_on_all_cores() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    // Each step is long: 16 rows of 64 × 64 latent pixels.
    let long = with(request("a panda", 1), &json!({"steps": 1000, "n": 8, "width": 512, "height": 512}));
    let id = server.accept(&long).await;
    let path = format!("/v1/images/{id}");
    let step = async || server.json(&path).await["progress"]["step"].as_u64().unwrap_or(0);
    server.until("it denoises", async |_: &Server| step().await > 0).await;

    // A step may end at any time, so at least one of ten tries must see at most one end of a step.
    let mut taken = Vec::new();
    while taken.len() < 10 && taken.last().is_none_or(|steps| *steps > 1) {
        let before = step().await;
        for _ in 0..QUESTIONS {
            assert_eq!(server.get("/health").await.status(), StatusCode::OK);
            let queue = server.json("/v1/queue").await;
            assert_eq!(queue["running"], 1, "{queue}");
        }
        taken.push(step().await - before);
    }
    assert!(
        taken.last().is_some_and(|steps| *steps <= 1),
        "steps while {QUESTIONS} questions were answered: {taken:?}"
    );
    let canceled = server.client.post(server.url(&format!("{path}/cancel"))).send().await.unwrap();
    assert!(canceled.status().is_success());
}
