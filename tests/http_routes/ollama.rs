//! Tests of the face of Ollama's protocol for pictures.

use axum::{
    body::Body,
    http::{Method, Request},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{Answer, TestApi},
    read::progress,
};

/// As `curl -d` sends it: JSON with the media type of a form.
fn post_to(path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    request.body(Body::from(body.to_string())).unwrap()
}

fn post(body: &Value) -> Request<Body> {
    post_to("/api/generate", body)
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn params_of_next(api: &TestApi) -> (latentd::ledger::Lease, Value) {
    let lease = api.begin_next().await;
    let record = api.store.get(lease.id()).await.unwrap().unwrap();
    (lease, Value::Object(record.job.params()))
}

#[tokio::test]
async fn the_stream_has_the_progress_and_ends_with_the_picture() {
    let api = TestApi::open(&[]).await;
    let body = json!({"model": "emoji:latest", "prompt": "a red fox", "steps": 10, "keep_alive": "5m", "options": {"seed": 7}});
    let work = async {
        let (lease, params) = params_of_next(&api).await;
        api.live.progress(lease.id(), progress(4));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        api.succeed(lease, PNG).await;
        params
    };
    let (answer, params) = tokio::join!(api.ask(post(&body)), work);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"), "{}", answer.text());
    assert_eq!((&params["model"], &params["seed"], &params["steps"]), (&json!("emoji"), &json!(7), &json!(10)));
    let lines = lines(&answer);
    let (last, before) = lines.split_last().unwrap();
    assert_eq!((&before[0]["completed"], &before[0]["total"]), (&json!(0), &json!(10)));
    assert!(before.iter().any(|line| line["completed"] == 4), "{before:?}");
    assert!(before.iter().all(|line| line["done"] == false && line["model"] == "emoji:latest"));
    assert_eq!((&last["done"], &last["done_reason"], &last["response"]), (&json!(true), &json!("stop"), &json!("")));
    assert_eq!(last["image"], BASE64_STANDARD.encode(PNG));
    assert!(last["total_duration"].is_u64() && last["load_duration"].is_u64(), "{last}");
    assert_eq!(last["warnings"][0]["pointer"], "/keep_alive");
    assert_eq!(last["generation"], answer.header("latentd-generation-id"));
}

#[tokio::test]
async fn without_a_stream_the_answer_is_one_object() {
    let api = TestApi::open(&[]).await;
    let body = json!({"prompt": "a red fox", "stream": false, "width": 0, "negative_prompt": "blur"});
    let work = async {
        let (lease, params) = params_of_next(&api).await;
        api.succeed(lease, PNG).await;
        params
    };
    let (answer, params) = tokio::join!(api.ask(post(&body)), work);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text());
    assert_eq!((&params["width"], &params["negative_prompt"]), (&json!(128), &json!("blur")));
    let last = answer.json();
    assert_eq!((&last["done"], &last["model"], &last["seed"]), (&json!(true), &json!("emoji"), &json!(7)));
    assert_eq!(last["image"], BASE64_STANDARD.encode(PNG));
}

#[tokio::test]
async fn errors_are_a_text_before_the_stream_and_its_last_line_after() {
    let api = TestApi::open(&[]).await;
    for (body, part) in [
        (json!({"prompt": "a", "steps": 5000}), "steps"),
        (json!({"prompt": "a", "model": "unknown"}), "unknown"),
        (json!({"prompt": "a", "color": "red"}), "color"),
        (json!({"prompt": "a", "images": ["AAAA", "AAAA"]}), "images"),
    ] {
        let answer = api.ask(post(&body)).await;
        assert_eq!((answer.status, answer.header("content-type")), (400, "application/json"), "{}", answer.text());
        assert!(answer.json()["error"].as_str().unwrap().contains(part), "{}", answer.text());
    }
    let failing = async {
        let lease = api.begin_next().await;
        api.fail(lease, "out_of_memory").await;
    };
    let (answer, ()) = tokio::join!(api.ask(post(&json!({"prompt": "a"}))), failing);
    let last = lines(&answer).pop().unwrap();
    assert_eq!((answer.status, &last["code"]), (200, &json!("out_of_memory")), "{last}");
    let failing = async {
        let lease = api.begin_next().await;
        api.fail(lease, "out_of_memory").await;
    };
    let (answer, ()) = tokio::join!(api.ask(post(&json!({"prompt": "a", "stream": false}))), failing);
    assert!(answer.status >= 500 && answer.json()["error"].is_string(), "{}", answer.text());
}

#[tokio::test]
async fn a_request_that_only_loads_a_model_draws_nothing() {
    let api = TestApi::open(&[]).await;
    let answer = api.ask(post(&json!({"model": "emoji", "keep_alive": -1}))).await;
    assert_eq!((answer.status, &answer.json()["done_reason"]), (200, &json!("load")), "{}", answer.text());
    assert_eq!(api.store.counts().await.unwrap().queued, 0);
}

#[tokio::test]
async fn clients_list_the_models_and_read_the_version() {
    let api = TestApi::open(&[]).await;
    let models = api.get("/api/tags").await.json();
    assert_eq!(
        (&models["models"][0]["name"], &models["models"][0]["capabilities"]),
        (&json!("emoji:latest"), &json!(["image"]))
    );
    assert!(models["models"][0]["size"].as_u64().unwrap() > 0);
    for body in [json!({"model": "emoji"}), json!({"name": "emoji:latest", "verbose": true})] {
        let shown = api.ask(post_to("/api/show", &body)).await;
        assert_eq!((shown.status, &shown.json()["capabilities"]), (200, &json!(["image"])), "{}", shown.text());
    }
    for (body, status) in [(json!({}), 400), (json!({"model": 7}), 400), (json!({"model": "none"}), 404)] {
        let answer = api.ask(post_to("/api/show", &body)).await;
        assert!(answer.status == status && answer.json()["error"].is_string(), "{}", answer.text());
    }
    assert_eq!(api.get("/api/version").await.json()["version"], env!("CARGO_PKG_VERSION"));
    let required = TestApi::open(&[("auth.required", "true")]).await;
    for path in ["/api/tags", "/api/version"] {
        let answer = required.act(Method::GET, path).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("missing_key")), "{path}");
    }
}
