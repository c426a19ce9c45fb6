//! Tests of repeated requests, with an idempotency key or with an id that the client chooses.

use axum::{
    body::Body,
    http::{Method, Request},
};
use futures::StreamExt;
use latentd::generation::GenerationId;
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{Answer, TestApi, post},
    conforms::events,
};

fn fox() -> Value {
    json!({"prompt": "a red fox"})
}

async fn keyed(api: &TestApi, key: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> = headers.iter().copied().chain([("idempotency-key", key)]).collect();
    api.ask(post(body, &headers)).await
}

fn put(path: &str, body: &Value, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::put(path).header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_string())).unwrap()
}

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

async fn count(api: &TestApi) -> usize {
    api.get("/v1/images?limit=100").await.json()["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_key_creates_one_generation_even_after_its_end() {
    let api = TestApi::open(&[]).await;
    let first = keyed(&api, "order-7", &fox(), &[]).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, ""));
    let again = keyed(&api, "\"order-7\"", &fox(), &[]).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(again.json(), first.json(), "both answers are the same, including the random seed");
    assert_eq!(again.header("location"), first.header("location"));

    api.succeed(api.begin().await, PNG).await;
    let ended = keyed(&api, "order-7", &fox(), &[]).await;
    assert_eq!((ended.status, ended.header("idempotency-replayed")), (200, "true"));
    assert_eq!((id(&ended), ended.json()["status"].as_str()), (id(&first), Some("succeeded")));
    let picture = keyed(&api, "order-7", &fox(), &[("accept", "image/png")]).await;
    assert_eq!((picture.status, picture.body.as_slice()), (200, PNG));
    assert_eq!(picture.header("idempotency-replayed"), "true");
    let told = keyed(&api, "order-7", &fox(), &[("accept", "text/event-stream")]).await;
    assert_eq!(told.header("idempotency-replayed"), "true");
    assert_eq!(events(told.text()).last().unwrap()["event"], "generation.succeeded");

    let other = keyed(&api, "order-8", &fox(), &[]).await;
    assert_eq!((other.status, other.header("idempotency-replayed")), (202, ""));
    assert_eq!(count(&api).await, 2);
}

#[tokio::test]
async fn a_key_matches_the_same_request_in_every_encoding() {
    let api = TestApi::open(&[]).await;
    let body = json!({"prompt": "a red fox", "steps": 7, "metadata": {"album": "animals"}});
    let first = keyed(&api, "k", &body, &[]).await;
    let form = Request::post("/v1/images")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("idempotency-key", "k")
        .body(Body::from("steps=7&metadata[album]=animals&prompt=a red fox"))
        .unwrap();
    assert_eq!(id(&api.ask(form).await), id(&first));
    let part =
        |name: &str, value: &str| format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let parts = [part("metadata[album]", "animals"), part("prompt", "a red fox"), part("steps", "7")].concat();
    let multipart = Request::post("/v1/images")
        .header("content-type", "multipart/form-data; boundary=x")
        .header("idempotency-key", "k")
        .body(Body::from(format!("{parts}--x--")))
        .unwrap();
    assert_eq!(id(&api.ask(multipart).await), id(&first));
    assert_eq!(count(&api).await, 1);

    let path = Request::post("/v1/images.png")
        .header("content-type", "application/json")
        .header("idempotency-key", "k")
        .header("prefer", "wait=0")
        .body(Body::from(body.to_string()))
        .unwrap();
    let late = api.ask(path).await;
    assert_eq!((late.status, late.header("idempotency-replayed")), (504, "true"));
    assert_eq!(late.header("location"), first.header("location"));
}

#[tokio::test]
async fn a_different_request_with_a_used_key_is_refused() {
    let api = TestApi::open(&[]).await;
    keyed(&api, "k", &fox(), &[]).await;
    for other in [json!({"prompt": "a red fox", "seed": 7}), json!({"prompt": "a panda"}), json!({"color": "red"})] {
        let refused = keyed(&api, "k", &other, &[]).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("idempotency_key_reused")));
    }
    let long = "x".repeat(256);
    for key in ["", "\"", "\"a\"b", &long] {
        let refused = keyed(&api, key, &fox(), &[]).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("idempotency_key_invalid")), "{key}");
    }
    // A refused request does not use up its key.
    assert_eq!(keyed(&api, "fresh", &json!({"prompt": "a", "steps": 0}), &[]).await.status, 422);
    assert_eq!(keyed(&api, "fresh", &fox(), &[]).await.status, 202);
    assert_eq!(count(&api).await, 2);
}

#[tokio::test]
async fn a_key_is_free_after_expiry_or_deletion_of_its_generation() {
    let api = TestApi::open(&[("queue.idempotency_s", "0.001")]).await;
    let first = keyed(&api, "k", &fox(), &[]).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_ne!(id(&keyed(&api, "k", &json!({"prompt": "a panda"}), &[]).await), id(&first));

    let api = TestApi::open(&[]).await;
    let first = keyed(&api, "k", &fox(), &[]).await;
    let path = first.header("location");
    api.act(Method::POST, &format!("{path}/cancel")).await;
    assert_eq!(
        id(&keyed(&api, "k", &fox(), &[]).await),
        id(&first),
        "the key still belongs to the canceled generation"
    );
    api.act(Method::DELETE, path).await;
    let second = keyed(&api, "k", &json!({"prompt": "a panda"}), &[]).await;
    assert_eq!((second.status, second.header("idempotency-replayed")), (202, ""));
}

#[tokio::test]
async fn repeated_requests_wait_for_the_same_generation() {
    let api = TestApi::open(&[]).await;
    let wait = [("prefer", "wait=20")];
    let (png, body) = ([("accept", "image/png")], fox());
    let (first, second, picture, ()) = tokio::join!(
        keyed(&api, "k", &body, &wait),
        keyed(&api, "k", &body, &wait),
        keyed(&api, "k", &body, &png),
        async { api.succeed(api.begin_next().await, PNG).await }
    );
    assert_eq!((first.status, second.status, picture.status), (200, 200, 200));
    assert_eq!(id(&first), id(&second));
    assert_eq!(picture.body, PNG);
    let replayed =
        [&first, &second, &picture].iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
    assert_eq!((replayed, count(&api).await), (2, 1));
}

#[tokio::test]
async fn a_disconnect_does_not_cancel_a_generation_with_a_key() {
    let api = TestApi::open(&[]).await;
    let request =
        |accept: &str| post(&fox(), &[("idempotency-key", accept), ("accept", accept), ("prefer", "wait=20")]);
    tokio::select! {
        response = api.send(request("image/png")) => panic!("answered {response:?}"),
        _ = api.begin_next() => {}
    }
    let mut stream = api.send(request("text/event-stream")).await.into_body().into_data_stream();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    api.afterwork.close();
    api.afterwork.wait().await;
    for one in api.get("/v1/images").await.json()["data"].as_array().unwrap() {
        let id = one["id"].as_str().unwrap().parse().unwrap();
        assert!(!api.store.get(id).await.unwrap().unwrap().cancel_requested);
        assert_ne!(one["status"], "canceled");
    }
}

/// A PNG file of 64 × 64 gray pixels of one level, as a data URL.
fn picture(level: u8) -> String {
    use base64::Engine;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[level; 64 * 64 * 3]).unwrap();
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(file))
}

#[tokio::test]
async fn uploads_of_a_repeated_request_are_stored_once() {
    let api = TestApi::open(&[]).await;
    let body = json!({"prompt": "a red fox", "image": {"data_url": picture(200)}});
    let answers = futures::future::join_all((0..6).map(|_| keyed(&api, "k", &body, &[]))).await;
    assert!(answers.iter().all(|answer| answer.status == 202 && id(answer) == id(&answers[0])));
    let stored = async || api.blobs.generations().await.unwrap();
    assert_eq!(stored().await.len(), 1, "only the one generation has files");
    let other = json!({"prompt": "a red fox", "image": {"data_url": picture(100)}});
    assert_eq!(keyed(&api, "k", &other, &[]).await.status, 422);
    assert_eq!(stored().await.len(), 1);
    let inputs = json!({"prompt": "a panda", "image": {"data_url": picture(50)}});
    let own = GenerationId::new();
    let path = format!("/v1/images/{own}");
    for _ in 0..2 {
        assert_eq!(api.ask(put(&path, &inputs, &[])).await.status, 202);
    }
    assert_eq!(stored().await.len(), 2);
    let upload = |answer: &Answer| answer.json()["params"]["image"]["upload"].as_str().unwrap().to_owned();
    let digest = upload(&api.get(&path).await);
    assert_eq!(api.ask(put(&path, &other, &[])).await.status, 409);
    let kept = latentd::ledger::blobs::path_of_input(own, &digest);
    assert!(api.blobs.get(&kept).await.unwrap().is_some(), "a refused request erases no file of another request");
}

#[tokio::test]
async fn an_id_that_the_client_chooses_creates_one_generation() {
    let api = TestApi::open(&[]).await;
    let own = GenerationId::new();
    let path = format!("/v1/images/{own}");
    let first = api.ask(put(&path, &fox(), &[])).await;
    assert_eq!((first.status, first.header("location"), id(&first)), (202, &*path, own.to_string()));
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = api.ask(put(&path, &fox(), &[("idempotency-key", "not looked at, \"")])).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(again.json(), first.json());

    let other = api.ask(put(&path, &json!({"prompt": "a panda"}), &[])).await;
    assert_eq!((other.status, other.json()["code"].as_str()), (409, Some("id_conflict")));
    assert_eq!(other.header("x-should-retry"), "false");
    let stranger = api.key("stranger", 9).await;
    let theirs = api.ask(put(&path, &fox(), &[("authorization", &stranger)])).await;
    assert_eq!((theirs.status, theirs.json()["code"].as_str()), (409, Some("id_conflict")));

    let (picture, ()) = tokio::join!(api.ask(put(&path, &fox(), &[("accept", "image/png")])), async {
        api.succeed(api.begin_next().await, PNG).await;
    });
    assert_eq!((picture.status, picture.body.as_slice()), (200, PNG));
    assert_eq!(api.ask(put(&path, &fox(), &[])).await.status, 200);
    assert_eq!(count(&api).await, 1);

    for bad in ["x".to_owned(), GenerationId::from_bytes([0; 16]).to_string(), own.to_string().to_uppercase()] {
        let refused = api.ask(put(&format!("/v1/images/{bad}"), &fox(), &[])).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/id")), "{bad}");
    }
}

#[tokio::test]
async fn concurrent_requests_with_one_id_create_one_generation() {
    let api = TestApi::open(&[]).await;
    let path = format!("/v1/images/{}", GenerationId::new());
    let bodies = [fox(), json!({"prompt": "a panda"})];
    let answers = futures::future::join_all((0..20).map(|i| api.ask(put(&path, &bodies[i % 2], &[])))).await;
    let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert_eq!(accepted.len(), 10, "the requests with the same body are accepted");
    assert!(accepted.iter().all(|answer| answer.json()["params"] == accepted[0].json()["params"]));
    assert!(answers.iter().all(|answer| answer.status == 202 || answer.status == 409));
    assert_eq!(count(&api).await, 1);
}
