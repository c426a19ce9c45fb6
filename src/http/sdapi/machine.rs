//! The operations about the server itself: its memory, its flags, and what it does by itself.

use axum::{extract::State, response::Json};
use serde_json::{Value, json};

use crate::{http::caller::Caller, service::Service};

/// The memory for generations, in bytes. The setting `engine.max_bytes` bounds this memory.
pub(super) async fn memory(State(service): State<Service>, _: Caller) -> Json<Value> {
    let (used, total) = service.memory();
    let ram = json!({"free": total.saturating_sub(used), "used": used, "total": total});
    Json(json!({"ram": ram, "cuda": {"error": "this server does not report the memory of GPUs"}}))
}

/// The flags of the web interface that describe this server.
pub(super) async fn flags(_: Caller) -> Json<Value> {
    Json(json!({"api": true, "nowebui": true}))
}

/// Answers requests to read the folders of models again, or to load or unload a model, and does nothing. The server
/// does all of this by itself, and no tenant may decide for the others.
pub(super) async fn unchanged(_: Caller) -> Json<Value> {
    Json(json!({}))
}

/// `GET /internal/ping`, by which a client finds out whether the server runs. Needs no key, as in the web interface.
pub(super) async fn ping() -> Json<Value> {
    Json(json!({}))
}
