//! What Ollama's clients read about models.

use axum::{extract::State, response::Json};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{JsonBody, request::TAG};
use crate::{
    generation::Invalid,
    hex::hex,
    http::{caller::Caller, error::ApiError},
    service::{ModelView, Service},
};

/// Models have no time of change here, but Ollama's clients expect such a time.
const MODIFIED_AT: &str = "1970-01-01T00:00:00.000Z";

/// `GET /api/tags`: the models that the caller can use. Their tag is always `latest`.
pub(super) async fn tags(State(service): State<Service>, caller: Caller) -> Json<Value> {
    let usable = service.models().into_iter().filter(|model| is_usable(model, &caller));
    let model = |model: ModelView| {
        let name = format!("{}{TAG}", model.name);
        let digest = hex(Sha256::digest(&model.name));
        json!({
            "name": name,
            "model": name,
            "modified_at": MODIFIED_AT,
            "size": model.bytes.unwrap_or(0),
            "digest": digest,
            "details": details(),
            "capabilities": ["image"],
        })
    };
    Json(json!({"models": usable.map(model).collect::<Vec<_>>()}))
}

/// `POST /api/show`: one model, which the client names with or without its tag. The texts that describe language
/// models, such as the template, are empty.
pub(super) async fn show(
    State(service): State<Service>,
    caller: Caller,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let (model, name) = (fields.text("model", MOST_CHARS), fields.text("name", MOST_CHARS));
    fields.take("verbose");
    if model.is_none() && name.is_none() && !fields.has_errors() {
        fields.error("model", "required", "is required: the name of a model");
    }
    let errors = fields.finish();
    let Some(named) = model.or(name).filter(|_| errors.is_empty()) else {
        return Err(ApiError::Invalid(Invalid { errors }));
    };
    let find = |name: &str| service.model(name).filter(|model| is_usable(model, &caller));
    let model = find(&named).or_else(|| find(named.strip_suffix(TAG)?)).ok_or(ApiError::NotFound("model"))?;
    Ok(Json(json!({
        "license": "",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "modified_at": MODIFIED_AT,
        "details": details(),
        "model_info": {"general.architecture": "diffusion", "general.basename": model.name},
        "capabilities": ["image"],
    })))
}

/// The longest name with its tag, in characters.
const MOST_CHARS: usize = 128 + TAG.len();

fn is_usable(model: &ModelView, caller: &Caller) -> bool {
    model.draws() && caller.may_use(&model.name)
}

fn details() -> Value {
    json!({
        "parent_model": "",
        "format": "safetensors",
        "family": "diffusion",
        "families": ["diffusion"],
        "parameter_size": "",
        "quantization_level": "",
    })
}

/// `GET /api/version`.
pub(super) async fn version(_: Caller) -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
