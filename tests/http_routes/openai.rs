//! Tests of OpenAI's protocol, with requests as OpenAI's SDKs send them.

#[path = "openai/edits.rs"]
mod edits;
#[path = "openai/retries.rs"]
mod retries;
#[path = "openai/streams.rs"]
mod streams;

use axum::{body::Body, http::Request};
use base64::{Engine, prelude::BASE64_STANDARD};
use latentd::{
    generation::{GenerationId, Job, Work},
    ledger::Outcome,
};
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{Answer, TestApi},
};

const GENERATIONS: &str = "/v1/images/generations";

/// A request of openai-python.
fn sdk(path: &str, body: &Value, more: &[(&str, &str)]) -> Request<Body> {
    let request = Request::post(path)
        .header("host", "localhost:8080")
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("authorization", "Bearer not-needed");
    let request = more.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_string())).unwrap()
}

async fn ask(api: &TestApi, body: Value) -> Answer {
    api.ask(sdk(GENERATIONS, &body, &[])).await
}

/// Sends a request whose generation succeeds with one PNG; also returns the job.
async fn drawn(api: &TestApi, request: Request<Body>) -> (Answer, Job) {
    let worker = async {
        let lease = api.begin_next().await;
        let job = api.store.get(lease.id()).await.unwrap().unwrap().job;
        api.succeed(lease, PNG).await;
        job
    };
    tokio::join!(api.ask(request), worker)
}

/// The status, and `param` and `code` of an error.
fn error(answer: &Answer) -> (u16, String, String) {
    let error = answer.json()["error"].clone();
    let text = |key: &str| error[key].as_str().unwrap_or("null").to_owned();
    (answer.status, text("param"), text("code"))
}

#[tokio::test]
async fn an_answer_has_what_every_client_needs() {
    let api = TestApi::open(&[]).await;
    let body = json!({"prompt": "a red fox", "seed": 7, "user": "mia", "quality": "low"});
    let (answer, job) = drawn(&api, sdk(GENERATIONS, &body, &[])).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let object = answer.json();
    let picture = &object["data"][0];
    assert_eq!(picture["b64_json"], BASE64_STANDARD.encode(PNG));
    let id = answer.header("latentd-generation-id");
    assert_eq!(picture["url"], format!("http://localhost:8080/v1/images/{id}/content/0"));
    assert_eq!(
        (&object["size"], &object["quality"], &object["output_format"]),
        (&json!("128x128"), &json!("low"), &json!("png"))
    );
    assert_eq!((&object["model"], &object["id"]), (&json!("emoji"), &json!(id)));
    assert!(object["created"].as_i64().unwrap() > 1_700_000_000);
    let usage = &object["usage"];
    assert_eq!(
        (&usage["input_tokens"], &usage["output_tokens"], &usage["total_tokens"]),
        (&json!(3), &json!(16), &json!(19))
    );
    let Work::Draw(draw) = &job.work else { panic!("a drawing") };
    assert_eq!((draw.seed, job.metadata["user"].as_str()), (7, "mia"));
    let models = api.get("/v1/models").await.json();
    assert_eq!(draw.steps, (models["data"][0]["capabilities"]["default_steps"].as_f64().unwrap() / 2.0).round() as u32);
}

#[tokio::test]
async fn the_answer_has_the_form_that_is_asked_for() {
    let api = TestApi::open(&[("http.url_secret", "correct horse battery staple")]).await;
    for (form, has) in [("b64_json", "b64_json"), ("url", "url")] {
        let body = json!({"prompt": "a", "response_format": form, "model": "dall-e-2"});
        let (answer, job) = drawn(&api, sdk(GENERATIONS, &body, &[("x-forwarded-proto", "https")])).await;
        let picture = answer.json()["data"][0].as_object().unwrap().clone();
        assert!(picture.contains_key(has) && picture.len() == 2, "{form}: {picture:?}");
        assert_eq!(job.model, "emoji", "OpenAI's models stand for the default model");
        if let Some(url) = picture.get("url").and_then(Value::as_str) {
            let path = url.strip_prefix("https://localhost:8080").unwrap();
            assert!(path.contains("?exp="), "{path}");
            assert_eq!(api.get(path).await.body, PNG);
        }
    }
}

#[tokio::test]
async fn native_fields_pass_through() {
    let api = TestApi::open(&[]).await;
    let body = json!({
        "prompt": "a", "n": 2, "size": "64x72", "steps": 3, "guidance_scale": 2.5, "negative_prompt": "b",
        "scheduler": "ddim", "strength": null, "output_format": "jpeg", "output_compression": 80,
    });
    let (answer, job) = drawn(&api, sdk(GENERATIONS, &body, &[])).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let params = job.params();
    for (name, expected) in [
        ("n", json!(2)),
        ("height", json!(72)),
        ("steps", json!(3)),
        ("guidance_scale", json!(2.5)),
        ("negative_prompt", json!("b")),
        ("scheduler", json!("ddim")),
    ] {
        assert_eq!(params[name], expected, "{name}");
    }
    assert_eq!((&params["output"]["format"], &params["output"]["quality"]), (&json!("jpeg"), &json!(80)));
}

#[tokio::test]
async fn unsupported_values_are_refused_with_the_field() {
    let api = TestApi::open(&[]).await;
    for (more, param, code) in [
        (json!({"background": "transparent"}), "background", "unsupported_parameter"),
        (json!({"output_format": "svg"}), "output_format", "unsupported_parameter"),
        (json!({"markup": "x"}), "markup", "unsupported_parameter"),
        (json!({"style": "natural"}), "style", "unsupported_parameter"),
        (json!({"frames": 4}), "frames", "unknown_parameter"),
        (json!({"size": "10x10000"}), "size", "out_of_range"),
        (json!({"n": 0}), "n", "out_of_range"),
        (json!({"model": "nothing"}), "model", "model_not_found"),
        (json!({"loras": [{"name": "ink"}]}), "loras.0.name", "unknown_lora"),
        (json!({"output": {"quality": 7}}), "output_compression", "conflict"),
        (json!({"partial_images": 9, "stream": true}), "partial_images", "out_of_range"),
        (json!({"prompt": null}), "prompt", "missing_required_parameter"),
    ] {
        let mut body = json!({"prompt": "a"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = ask(&api, body).await;
        assert_eq!(error(&answer), (400, param.to_owned(), code.to_owned()), "{more}: {}", answer.text());
        assert_eq!(answer.header("x-should-retry"), "false");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(param.split('.').next().unwrap()) || param == "output_compression", "{message}");
    }
    assert_eq!(api.store.counts().await.unwrap().queued, 0);
}

#[tokio::test]
async fn errors_have_openais_form_and_say_whether_to_retry() {
    let api = TestApi::open(&[("queue.max_queued", "1")]).await;
    let malformed =
        Request::post(GENERATIONS).header("content-type", "application/json").body(Body::from("{")).unwrap();
    let answer = api.ask(malformed).await;
    assert_eq!(error(&answer), (400, "null".to_owned(), "malformed_json".to_owned()));

    let waiting = api.create(json!({"prompt": "a"})).await;
    let full = ask(&api, json!({"prompt": "a"})).await;
    assert_eq!(error(&full), (503, "null".to_owned(), "queue_full".to_owned()));
    assert!(full.header("retry-after").parse::<u32>().unwrap() <= 120);
    assert_eq!(full.header("x-should-retry"), "");
    let lease = api.begin().await;
    assert_eq!(lease.id(), waiting);
    api.succeed(lease, PNG).await;

    let key = api.key("alice", 9).await;
    let answer = ask(&api, json!({"prompt": "a"})).await;
    assert_eq!(error(&answer), (401, "null".to_owned(), "invalid_api_key".to_owned()), "keys exist now");
    assert!(key.starts_with("Bearer ltd_"));
    for (code, retry) in [("internal", ""), ("out_of_memory", "false")] {
        let request = Request::post(GENERATIONS).header("content-type", "application/json");
        let request = request.body(Body::from(json!({"prompt": "a"}).to_string())).unwrap();
        let worker = async { api.fail(api.begin_next().await, code).await };
        let (answer, ()) = tokio::join!(api.ask(request), worker);
        assert_eq!((answer.status, answer.header("x-should-retry")), (500, retry), "{code}");
        assert_eq!(answer.json()["error"]["type"], "server_error");
    }
    let cancel = async { api.end(api.begin_next().await, Outcome::Canceled).await };
    let request = Request::post(GENERATIONS).header("content-type", "application/json");
    let request = request.body(Body::from(json!({"prompt": "a"}).to_string())).unwrap();
    let (canceled, ()) = tokio::join!(api.ask(request), cancel);
    assert_eq!((canceled.status, canceled.header("x-should-retry")), (409, "false"));
}

#[tokio::test]
async fn the_list_of_models_is_open_to_any_key_while_none_exists() {
    let api = TestApi::open(&[]).await;
    let list = api.get_with("/v1/models", "authorization", "Bearer not-needed").await;
    assert_eq!((list.status, list.json()["object"].clone()), (200, json!("list")));
    for key in ["id", "object", "created", "owned_by"] {
        assert!(!list.json()["data"][0][key].is_null(), "{key}");
    }
}

#[tokio::test]
async fn an_idempotency_key_works_as_in_the_native_protocol() {
    let api = TestApi::open(&[]).await;
    let body = json!({"prompt": "a"});
    let key = [("idempotency-key", "k1")];
    let (first, _) = drawn(&api, sdk(GENERATIONS, &body, &key)).await;
    let again = api.ask(sdk(GENERATIONS, &body, &key)).await;
    assert_eq!((again.status, again.json()["id"].clone()), (200, first.json()["id"].clone()));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other = api.ask(sdk(GENERATIONS, &json!({"prompt": "b"}), &key)).await;
    assert_eq!(error(&other), (400, "null".to_owned(), "idempotency_key_reused".to_owned()));
}

/// The id of the only generation that is queued or running.
async fn active(api: &TestApi) -> GenerationId {
    let list = api.get("/v1/images").await.json();
    list["data"][0]["id"].as_str().unwrap().parse().unwrap()
}
