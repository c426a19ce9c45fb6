//! Tests that every error under the paths of another protocol has the form of that protocol, also if the request
//! reaches no handler.

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};

use crate::{
    api::{Answer, TestApi, read},
    conforms::assert_valid,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const TEXT: (&str, &str) = ("content-type", "text/plain");
const PACKED: (&str, &str) = ("content-encoding", "gzip");
const FOREIGN: (&str, &str) = ("origin", "https://evil.example");

/// The roots of a protocol, the schema of its errors, and the member of an error that has the code.
const FACES: [(&[&str], &str, &str); 4] = [
    (&["/v1/images/generations", "/v1/images/edits", "/v1/images/variations"], "OpenAiErrorBody", "/error/code"),
    (&["/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/png-info"], "SdapiError", "/error"),
    (&["/api/generate", "/api/show"], "OllamaError", "/code"),
    (&["/v1/images", "/v1/webhook_endpoints"], "Problem", "/code"),
];

async fn send(api: &TestApi, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    read(api.send(request.body(Body::from(body.to_owned())).unwrap()).await).await
}

/// Checks the form of an error. `form` is the schema and the member with the code.
fn refused(answer: &Answer, status: u16, code: &str, (schema, member): (&str, &str), path: &str) {
    assert_eq!(answer.status, status, "{path}: {}", answer.text());
    let media_type = if schema == "Problem" { "application/problem+json" } else { "application/json" };
    assert_eq!(answer.header("content-type"), media_type, "{path}");
    let body: Value = answer.json();
    let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
    assert_valid(&schema, &body, "any", path, status);
    assert_eq!(body.pointer(member), Some(&json!(code)), "{path}: {body}");
}

#[tokio::test]
async fn requests_that_reach_no_handler_are_refused_in_the_form_of_the_protocol() {
    let api = TestApi::open(&[("http.max_body_bytes", "65536")]).await;
    let long = json!({"prompt": "x".repeat(100_000)}).to_string();
    for (roots, schema, member) in FACES {
        let form = (schema, member);
        for root in roots {
            for method in [Method::PATCH, Method::PUT, Method::DELETE] {
                let answer = send(&api, method, root, &[], "").await;
                refused(&answer, 405, "method_not_allowed", form, root);
                assert!(answer.header("allow").contains("POST"), "{root}");
            }
            let nowhere = format!("{root}/nothing/at/all");
            for method in [Method::GET, Method::POST] {
                refused(&send(&api, method, &nowhere, &[JSON], "{}").await, 404, "not_found", form, &nowhere);
            }
            refused(&send(&api, Method::POST, root, &[JSON], &long).await, 413, "body_too_large", form, root);
            // Ollama's clients do not name the type of their bodies, so only a compressed one is refused.
            let unread: &[&[_]] = if schema == "OllamaError" { &[&[PACKED]] } else { &[&[PACKED, JSON], &[TEXT], &[]] };
            for headers in unread {
                let answer = send(&api, Method::POST, root, headers, "{}").await;
                refused(&answer, 415, "unsupported_media_type", form, root);
            }
            let foreign = send(&api, Method::POST, root, &[JSON, FOREIGN], "{}").await;
            refused(&foreign, 403, "foreign_origin", form, root);
            let rebound = send(&api, Method::POST, root, &[JSON, ("host", "evil.example")], "{}").await;
            refused(&rebound, 421, "host_not_allowed", form, root);
        }
    }
    for (path, form) in [
        ("/sdapi", ("SdapiError", "/error")),
        ("/sdapi/v2/txt2img", ("SdapiError", "/error")),
        ("/controlnet/detect", ("SdapiError", "/error")),
        ("/internal/x", ("SdapiError", "/error")),
        ("/api", ("OllamaError", "/code")),
        ("/api/chat", ("OllamaError", "/code")),
        ("/v1/images/edits/cancel", ("OpenAiErrorBody", "/error/code")),
        ("/v1/imagesx", ("Problem", "/code")),
    ] {
        refused(&send(&api, Method::POST, path, &[JSON], "{}").await, 404, "not_found", form, path);
    }
    assert_eq!(api.store.counts().await.unwrap().queued, 0);
}
