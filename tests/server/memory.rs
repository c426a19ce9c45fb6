//! Tests of memory bounds: a request that cannot fit is refused before any work, and one that does not fit now waits.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Server, request, with};

const MAX_BYTES: (&str, &str) = ("LATENTD_ENGINE__MAX_BYTES", "200000000");

#[tokio::test]
async fn too_large_requests_are_refused_with_field_and_bound() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[MAX_BYTES]).await;
    for (side, n, pointer) in [(2048, 1, "/width"), (2048, 8, "/width"), (608, 8, "/n")] {
        let refused = server
            .post(&with(request("a panda", 1), &json!({"width": side, "height": side, "n": n, "steps": 2})))
            .await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem: serde_json::Value = refused.json().await.unwrap();
        let error = &problem["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&pointer.into(), &"out_of_range".into()), "{problem}");
        assert!(error["detail"].as_str().unwrap().contains("engine.max_bytes is 191 MiB"), "{problem}");
    }
    assert_eq!(server.json("/v1/images").await["data"], json!([]), "nothing was accepted");
    let fits = server.accept(&with(request("a panda", 1), &json!({"width": 608, "height": 608, "steps": 1}))).await;
    assert_eq!(server.ended(&fits).await["status"], "succeeded");
}

#[tokio::test]
async fn generations_that_do_not_fit_together_wait_and_succeed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[MAX_BYTES]).await;
    let large = json!({"width": 512, "height": 512, "n": 4, "steps": 1, "guidance_scale": 1});
    let mut ids = Vec::new();
    for seed in 0..4 {
        ids.push(server.accept(&with(request("a panda", seed), &large)).await);
    }
    ids.push(server.accept(&request("a small one", 9)).await);
    for id in &ids {
        assert_eq!(server.ended(id).await["status"], "succeeded");
    }
}
