//! Tests that a request that is sent more than once creates one generation.

use futures::future::join_all;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, request, with};

async fn keyed(server: &Server, key: &str, body: &Value) -> Response {
    server.client.post(server.url("/v1/images")).header("Idempotency-Key", key).json(body).send().await.unwrap()
}

fn brief(seed: u64) -> Value {
    with(request("a red fox", seed), &json!({"steps": 2}))
}

#[tokio::test]
async fn a_hundred_concurrent_requests_with_one_key_create_one_generation() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let (one, other) = (brief(1), brief(2));
    let answers = join_all((0..100).map(|i| keyed(&server, "order-7", if i % 2 == 0 { &one } else { &other }))).await;
    let mut documents = Vec::new();
    for answer in answers {
        let replayed = answer.headers().contains_key("idempotency-replayed");
        documents.push((answer.status(), replayed, answer.json::<Value>().await.unwrap()));
    }
    let accepted: Vec<_> = documents.iter().filter(|(status, ..)| status.is_success()).collect();
    let refused: Vec<_> = documents.iter().filter(|(status, ..)| *status == StatusCode::UNPROCESSABLE_ENTITY).collect();
    assert_eq!((accepted.len(), refused.len()), (50, 50), "one of the two bodies must be accepted");
    assert!(accepted.iter().all(|(.., document)| document["id"] == accepted[0].2["id"]));
    assert_eq!(
        accepted.iter().filter(|(_, replayed, _)| !replayed).count(),
        1,
        "exactly one request created the generation"
    );
    assert!(refused.iter().all(|(.., document)| document["code"] == "idempotency_key_reused"));
    let all = server.json("/v1/images").await;
    assert_eq!(all["data"].as_array().unwrap().len(), 1);
    assert_eq!(server.ended(all["data"][0]["id"].as_str().unwrap()).await["status"], "succeeded");
    assert_eq!(server.metric("latentd_generations_accepted_total", "").await, 1.0);
    assert_eq!(server.metric("latentd_requests_replayed_total", "").await, 49.0);
}

#[tokio::test]
async fn a_key_is_valid_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let body = with(request("a red fox", 7), &json!({"steps": 200}));
    let first: Value = keyed(&server, "order-7", &body).await.json().await.unwrap();
    server.kill();
    let server = Server::start(data.path(), &[]).await;
    let again = keyed(&server, "order-7", &body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    assert_eq!(keyed(&server, "order-7", &brief(7)).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let picture = server.client.post(server.url("/v1/images.png")).header("Idempotency-Key", "order-7").json(&body);
    let picture = picture.send().await.unwrap();
    assert_eq!(
        (picture.status(), &picture.headers()["idempotency-replayed"]),
        (StatusCode::OK, &"true".parse().unwrap())
    );
    assert_eq!(picture.bytes().await.unwrap(), server.file(first["id"].as_str().unwrap(), 0).await);
    assert_eq!(server.json("/v1/images").await["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_disconnected_client_gets_its_picture_with_the_same_key() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let body = with(request("a panda", 3), &json!({"steps": 100}));
    let ask = || server.client.post(server.url("/v1/images.png")).header("Idempotency-Key", "order-7").json(&body);
    let impatient = tokio::spawn(ask().send());
    server.until("it denoises", async |server: &Server| server.metric("latentd_steps_total", "").await > 4.0).await;
    impatient.abort();
    let picture = ask().send().await.unwrap();
    assert_eq!(
        (picture.status(), &picture.headers()["idempotency-replayed"]),
        (StatusCode::OK, &"true".parse().unwrap())
    );
    let list = server.json("/v1/images").await;
    assert_eq!((list["data"].as_array().unwrap().len(), list["data"][0]["attempt"].as_u64()), (1, Some(1)));
}

#[tokio::test]
async fn an_id_that_is_sent_twice_creates_one_generation() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let id = latentd::generation::GenerationId::new();
    let path = format!("/v1/images/{id}");
    let put = |body: Value| server.client.put(server.url(&path)).json(&body).send();
    let first = put(brief(1)).await.unwrap();
    assert_eq!((first.status(), first.headers()["location"].to_str().unwrap()), (StatusCode::ACCEPTED, &*path));
    let again = put(brief(1)).await.unwrap();
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap()["id"], id.to_string());
    let other = put(brief(2)).await.unwrap();
    assert_eq!((other.status(), other.headers()["x-should-retry"].to_str().unwrap()), (StatusCode::CONFLICT, "false"));
    assert_eq!(server.ended(&id.to_string()).await["status"], "succeeded");
    let png = server.client.put(server.url(&path)).header("Accept", "image/png").json(&brief(1)).send().await.unwrap();
    assert_eq!(png.bytes().await.unwrap(), server.file(&id.to_string(), 0).await);
    assert_eq!(server.json("/v1/images").await["data"].as_array().unwrap().len(), 1);
}
