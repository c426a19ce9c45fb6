//! `GET /sdapi/v1/memory` and `GET /sdapi/v1/cmd-flags`.

use axum::{extract::State, response::Json};
use serde_json::{Value, json};

use crate::{http::caller::Caller, service::Service};

/// The memory for generations in bytes, which the setting `engine.max_bytes` bounds.
pub(super) async fn memory(State(service): State<Service>, _: Caller) -> Json<Value> {
    let (used, total) = service.memory();
    let ram = json!({"free": total.saturating_sub(used), "used": used, "total": total});
    Json(json!({"ram": ram, "cuda": {"error": "this server computes on processors"}}))
}

/// The flags of the web interface that describe this server.
pub(super) async fn flags(_: Caller) -> Json<Value> {
    Json(json!({"api": true, "nowebui": true}))
}
