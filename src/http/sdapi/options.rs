//! `/sdapi/v1/options`: of the web interface's many options, only the model can be set.

use std::{collections::HashMap, sync::Arc};

use axum::{extract::State, response::Json};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{control_net::without_hash, notes::Notes};
use crate::{
    generation::{Fields, Invalid},
    http::{AppState, caller::Caller, error::ApiError},
    service::Service,
};

/// The model that each tenant has chosen, in this process only. The number of entries is bounded: each tenant has at
/// most one, and only the operator makes tenants.
#[derive(Clone, Debug, Default)]
pub struct ChosenModels(Arc<Mutex<HashMap<Arc<str>, String>>>);

impl ChosenModels {
    fn of(&self, tenant: &str) -> Option<String> {
        self.0.lock().get(tenant).cloned()
    }

    fn set(&self, tenant: Arc<str>, model: String) {
        self.0.lock().insert(tenant, model);
    }
}

/// The model for a request of this caller: the model in `override_settings`, even if its name is unknown; otherwise the
/// model that the tenant has chosen; otherwise the default model. If the caller may not use the chosen or the default
/// model, or if this model does not draw pictures, the first model that draws and that the caller may use.
pub(super) fn model_of(state: &AppState, caller: &Caller, settings: Option<&Value>) -> String {
    let named = settings.and_then(|settings| settings.get("sd_model_checkpoint")).and_then(Value::as_str);
    match named.filter(|name| !name.is_empty()) {
        Some(name) => known(&state.service, name).unwrap_or_else(|| name.to_owned()),
        None => chosen(state, caller),
    }
}

fn chosen(state: &AppState, caller: &Caller) -> String {
    let chosen = state.sdapi_models.of(&caller.tenant).filter(|name| state.service.model(name).is_some());
    let preferred = chosen.unwrap_or_else(|| state.service.default_model().to_owned());
    if caller.may_use(&preferred) && may_draw(&state.service, &preferred) {
        return preferred;
    }
    let usable = state.service.models().into_iter().find(|model| model.draws() && caller.may_use(&model.name));
    usable.map_or(preferred, |model| model.name)
}

/// Whether the model draws, or would if it could be used.
fn may_draw(service: &Service, name: &str) -> bool {
    service.model(name).is_some_and(|model| model.card.is_none() || model.draws())
}

/// The model of this title. A title is the name of a model in upper or lower case, and may have the extension of a
/// weight file and a hash in brackets.
fn known(service: &Service, title: &str) -> Option<String> {
    let short = without_hash(title.trim());
    let short = [".safetensors", ".ckpt"].iter().find_map(|ending| short.strip_suffix(ending)).unwrap_or(short);
    let names: Vec<String> = service.models().into_iter().map(|model| model.name).collect();
    let found = names.iter().find(|name| *name == title).or_else(|| names.iter().find(|name| *name == short));
    found.or_else(|| names.iter().find(|name| name.eq_ignore_ascii_case(short))).cloned()
}

/// `GET /sdapi/v1/options`.
pub(super) async fn get(State(state): State<AppState>, caller: Caller) -> Json<Value> {
    Json(json!({
        "sd_model_checkpoint": chosen(&state, &caller),
        "sd_checkpoint_hash": null,
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
        "randn_source": "CPU",
        "live_previews_enable": true,
    }))
}

/// `POST /sdapi/v1/options`.
pub(super) async fn set(
    State(state): State<AppState>,
    caller: Caller,
    mut fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let mut options: Map<String, Value> = fields.take_all();
    let model = match options.remove("sd_model_checkpoint") {
        None | Some(Value::Null) => None,
        Some(Value::String(title)) => {
            match known(&state.service, &title).filter(|name| caller.may_use(name) && may_draw(&state.service, name)) {
                Some(name) => Some(name),
                None => {
                    let detail = "is not a model that draws and that the caller may use; GET /sdapi/v1/sd-models lists the models";
                    fields.error("sd_model_checkpoint", "unknown_model", detail);
                    None
                }
            }
        }
        Some(other) => fields.wrong_type("sd_model_checkpoint", "a string", &other),
    };
    if fields.has_errors() {
        return Err(ApiError::Invalid(Invalid { errors: fields.finish() }));
    }
    if let Some(model) = model {
        state.sdapi_models.set(caller.tenant, model);
    }
    let ignored = options.keys().take(Notes::MOST);
    let notes: Vec<String> =
        ignored.map(|name| format!("{} is ignored: only sd_model_checkpoint can be set", cut(name))).collect();
    Ok(Json(json!({ "notes": notes })))
}

fn cut(name: &str) -> String {
    name.chars().take(64).collect()
}
