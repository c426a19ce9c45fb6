//! Serves the API contract as YAML and as JSON.

use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};
use bytes::Bytes;

/// The contract in YAML, as it is written.
pub const OPENAPI_YAML: &str = include_str!("../../openapi.yaml");

/// The contract in JSON, for readers without YAML.
static OPENAPI_JSON: LazyLock<Bytes> = LazyLock::new(|| {
    let contract: serde_json::Value = serde_yaml_ng::from_str(OPENAPI_YAML).expect("a test parses this constant");
    contract.to_string().into()
});

pub async fn yaml() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml"), (header::CACHE_CONTROL, "no-cache")], OPENAPI_YAML)
}

pub async fn json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], OPENAPI_JSON.clone())
}
