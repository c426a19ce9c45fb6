//! The lists that Ollama's clients read.

use axum::{extract::State, response::Json};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::request::TAG;
use crate::{http::caller::Caller, service::Service};

/// `GET /api/tags`: the models that can be used. Their tag is always `latest`. `modified_at` is always 1970, because
/// models have no time of change.
pub(super) async fn tags(State(service): State<Service>, _: Caller) -> Json<Value> {
    let usable = service.models().into_iter().filter(|model| model.card.is_some());
    let model = |model: crate::service::ModelView| {
        let name = format!("{}{TAG}", model.name);
        let digest: String = Sha256::digest(&model.name).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "name": name,
            "model": name,
            "modified_at": "1970-01-01T00:00:00.000Z",
            "size": model.bytes.unwrap_or(0),
            "digest": digest,
            "details": {
                "parent_model": "",
                "format": "safetensors",
                "family": "diffusion",
                "families": ["diffusion"],
                "parameter_size": "",
                "quantization_level": "",
            },
            "capabilities": ["image"],
        })
    };
    Json(json!({"models": usable.map(model).collect::<Vec<_>>()}))
}

/// `GET /api/version`.
pub(super) async fn version(_: Caller) -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
