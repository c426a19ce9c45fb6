//! Tests of the operations of AUTOMATIC1111's web interface that do not draw.

use axum::{body::Body, http::Request};
use serde_json::json;

use crate::api::{Answer, TestApi};

async fn send(api: &TestApi, method: &str, path: &str) -> Answer {
    api.ask(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn features_that_this_server_lacks_are_empty_lists() {
    let api = TestApi::open(&[]).await;
    for name in [
        "upscalers",
        "latent-upscale-modes",
        "sd-vae",
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "prompt-styles",
    ] {
        let answer = api.get(&format!("/sdapi/v1/{name}")).await;
        assert_eq!((answer.status, answer.json()), (200, json!([])), "{name}");
    }
}

#[tokio::test]
async fn requests_to_load_models_are_answered_and_change_nothing() {
    let api = TestApi::open(&[]).await;
    let before = api.get("/v1/models").await.json();
    for name in [
        "refresh-checkpoints",
        "refresh-loras",
        "refresh-embeddings",
        "refresh-vae",
        "unload-checkpoint",
        "reload-checkpoint",
    ] {
        let answer = send(&api, "POST", &format!("/sdapi/v1/{name}")).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{name}");
    }
    assert_eq!(api.get("/v1/models").await.json(), before);
    assert_eq!(api.get("/internal/ping").await.json(), json!({}));
}

#[tokio::test]
async fn the_types_of_control_nets_name_those_of_the_lists() {
    let api = TestApi::open(&[]).await;
    let all = api.get("/controlnet/control_types").await.json()["control_types"]["All"].clone();
    let names = api.get("/controlnet/model_list").await.json()["model_list"].clone();
    assert_eq!(all["module_list"], api.get("/controlnet/module_list").await.json()["module_list"]);
    assert_eq!(all["model_list"][0], "None");
    assert_eq!(all["model_list"].as_array().unwrap()[1..], names.as_array().unwrap()[..]);
    assert_eq!(api.get("/controlnet/settings").await.json(), json!({"control_net_unit_count": 4}));
}

#[tokio::test]
async fn paths_and_methods_without_an_operation_are_errors_in_the_form_of_their_protocol() {
    let api = TestApi::open(&[]).await;
    for (method, path, status, code) in [
        ("POST", "/sdapi/v1/extra-single-image", 404, "not_found"),
        ("GET", "/sdapi/v1/nothing", 404, "not_found"),
        ("GET", "/controlnet/nothing", 404, "not_found"),
        ("GET", "/sdapi/v1/txt2img", 405, "method_not_allowed"),
    ] {
        let answer = send(&api, method, path).await;
        let error = answer.json();
        assert_eq!((answer.status, error["error"].as_str()), (status, Some(code)), "{path} {error}");
        assert!(error["detail"].is_string() && error["status"] == status, "{error}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let answer = send(&api, "POST", "/api/pull").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("not_found")));
    let native = send(&api, "GET", "/v1/nothing").await;
    assert_eq!((native.status, native.header("content-type")), (404, "application/problem+json"));
}
