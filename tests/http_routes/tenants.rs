//! Tests of API keys, and of tenants, which cannot see each other's data.

use axum::{
    body::Body,
    http::{Method, Request},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    PNG,
    api::{Answer, TestApi, post},
};

async fn ask(api: &TestApi, method: Method, path: &str, key: Option<&str>) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = key.into_iter().fold(request, |request, key| request.header("authorization", key));
    api.ask(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn generations_of_another_tenant_are_not_found() {
    let api = TestApi::open(&[]).await;
    let (alice, bob) = (api.key("alice", 9).await, api.key("bob", 9).await);
    let created = api.ask(post(&json!({"prompt": "a red fox"}), &[("authorization", &alice)])).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    api.succeed(api.begin().await, PNG).await;
    let record = api.store.get(id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(record.tenant, "alice");

    let path = |rest: &str| format!("/v1/images/{id}{rest}");
    let reads = [path(""), path("/events"), path("/content/0"), path("/preview")];
    for key in [Some(&*bob), None] {
        for path in &reads {
            let hidden = ask(&api, Method::GET, path, key).await;
            assert_eq!((hidden.status, hidden.json()["code"].as_str()), (404, Some("not_found")), "{path}");
        }
        assert_eq!(ask(&api, Method::POST, &path("/cancel"), key).await.status, 404);
        assert_eq!(ask(&api, Method::DELETE, &path(""), key).await.status, 404);
        let list = ask(&api, Method::GET, "/v1/images", key).await.json();
        assert_eq!(list["data"], json!([]));
        let waiting = Request::get(path("")).header("prefer", "wait=20");
        let waiting = key.into_iter().fold(waiting, |request, key| request.header("authorization", key));
        assert_eq!(api.ask(waiting.body(Body::empty()).unwrap()).await.status, 404);
    }
    for path in reads.iter().take(3) {
        assert_eq!(ask(&api, Method::GET, path, Some(&alice)).await.status, 200, "{path}");
    }
    let list = ask(&api, Method::GET, "/v1/images", Some(&alice)).await.json();
    assert_eq!(list["data"][0]["id"], id);
    assert_eq!(ask(&api, Method::DELETE, &path(""), Some(&alice)).await.status, 204);
}

#[tokio::test]
async fn uploads_and_idempotency_keys_belong_to_one_tenant() {
    let api = TestApi::open(&[]).await;
    let (alice, bob) = (api.key("alice", 9).await, api.key("bob", 9).await);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[90; 64 * 64 * 3]).unwrap();
    let body = json!({"prompt": "a red fox", "image": {"b64": BASE64_STANDARD.encode(file)}});
    let first = api.ask(post(&body, &[("authorization", &alice)])).await;
    let digest = first.json()["params"]["image"]["upload"].clone();
    let upload = format!("/v1/uploads/{}", digest.as_str().unwrap());
    let own = ask(&api, Method::GET, &upload, Some(&alice)).await;
    assert_eq!((own.status, own.header("content-type")), (200, "image/png"));
    let sha256: String = Sha256::digest(&own.body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sha256, digest.as_str().unwrap(), "the upload has the digest in its path");
    assert_eq!(own.header("cache-control"), "private, max-age=31536000, immutable");
    let known = Request::get(&upload).header("authorization", &alice).header("if-none-match", own.header("etag"));
    assert_eq!(api.ask(known.body(Body::empty()).unwrap()).await.status, 304);
    let unknown = format!("/v1/uploads/{}", "0".repeat(64));
    for (path, key) in
        [(&*upload, Some(&*bob)), (&upload, None), ("/v1/uploads/x", Some(&alice)), (&unknown, Some(&alice))]
    {
        let hidden = ask(&api, Method::GET, path, key).await;
        assert_eq!((hidden.status, hidden.json()["code"].as_str()), (404, Some("not_found")), "{path}");
    }
    let again = json!({"prompt": "a panda", "image": {"upload": digest}});
    assert_eq!(api.ask(post(&again, &[("authorization", &alice)])).await.status, 202);
    for headers in [&[("authorization", &*bob)][..], &[]] {
        let refused = api.ask(post(&again, headers)).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/image")));
    }

    let keyed = async |key: &str| {
        let headers = [("authorization", key), ("idempotency-key", "the same")];
        api.ask(post(&json!({"prompt": "a red fox"}), &headers)).await.json()["id"].clone()
    };
    assert_ne!(keyed(&alice).await, keyed(&bob).await);
    assert_eq!(keyed(&alice).await, keyed(&alice).await);
    let queue = ask(&api, Method::GET, "/v1/queue", Some(&bob)).await.json();
    assert_eq!((queue["queued"].as_u64(), &queue["own"]), (Some(4), &json!({"queued": 1, "running": 0})));
}

#[tokio::test]
async fn wrong_keys_are_refused_with_a_challenge() {
    let api = TestApi::open(&[]).await;
    let key = api.key("alice", 9).await;
    let text = key.strip_prefix("Bearer ").unwrap();
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("anybody:{text}")));
    for good in [&key, &basic] {
        assert_eq!(ask(&api, Method::GET, "/v1/images", Some(good)).await.status, 200);
    }
    let unknown = latentd::service::ApiKey::new().unwrap();
    // A key with a known public part and a wrong secret.
    let terms = Default::default();
    let new =
        latentd::service::NewKey { tenant: "alice".to_owned(), weight: 1.0, max_queued: 9, max_running: 8, terms };
    let (forged, mut record) = new.make().unwrap();
    record.sha256[31] ^= 1;
    api.store.create_key(&record).await.unwrap();
    for key in [unknown.expose(), forged.expose(), "ltd_x", "sk-abc", &text[..text.len() - 1]] {
        let refused = ask(&api, Method::GET, "/v1/images", Some(&format!("Bearer {key}"))).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("invalid_key")), "{key}");
        assert!(refused.header("www-authenticate").starts_with("Bearer realm="));
        assert!(!refused.text().contains(key), "the answer contains the key");
    }
    for path in ["/v1/models", "/v1/loras", "/v1/controlnets", "/v1/schedulers", "/v1/queue", "/v1/models/emoji"] {
        assert_eq!(ask(&api, Method::GET, path, Some("Bearer ltd_x")).await.status, 401, "{path}");
        assert_eq!(ask(&api, Method::GET, path, None).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_server_without_keys_ignores_keys_of_other_servers() {
    let api = TestApi::open(&[]).await;
    for key in ["Bearer not-needed", "Bearer sk-abc", "Basic dXNlcjpwYXNzd29yZA==", "Digest x", "x", "Bearer ", ""] {
        let answer = ask(&api, Method::GET, "/v1/models", Some(key)).await;
        assert_eq!(answer.status, 200, "{key:?}");
        assert_eq!(api.ask(post(&json!({"prompt": "a"}), &[("authorization", key)])).await.status, 202, "{key:?}");
    }
    // A key with the server's own prefix is checked even if the server has no keys.
    let unknown = latentd::service::ApiKey::new().unwrap();
    for key in [unknown.expose(), "ltd_x", "LTD_x"] {
        let refused = ask(&api, Method::GET, "/v1/models", Some(&format!("Bearer {key}"))).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("invalid_key")), "{key}");
    }
    // After the first key is created, unknown keys are refused.
    api.key("alice", 9).await;
    assert_eq!(ask(&api, Method::GET, "/v1/models", Some("Bearer sk-abc")).await.status, 401);
    assert_eq!(ask(&api, Method::GET, "/v1/models", None).await.status, 200);
    let strict = TestApi::open(&[("auth.required", "true")]).await;
    assert_eq!(ask(&strict, Method::GET, "/v1/models", Some("Bearer sk-abc")).await.status, 401);
}

#[tokio::test]
async fn a_server_can_require_a_key_from_everyone() {
    let api = TestApi::open(&[("auth.required", "true")]).await;
    let key = api.key("alice", 9).await;
    for path in ["/v1/images", "/v1/models", "/v1/queue"] {
        let refused = ask(&api, Method::GET, path, None).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("missing_key")), "{path}");
        assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"latentd\"");
        assert_eq!(ask(&api, Method::GET, path, Some(&key)).await.status, 200, "{path}");
    }
    assert_eq!(api.ask(post(&json!({"prompt": "a"}), &[])).await.status, 401);
    for path in ["/", "/health", "/openapi.yaml"] {
        assert_eq!(ask(&api, Method::GET, path, None).await.status, 200, "{path}");
    }
}
