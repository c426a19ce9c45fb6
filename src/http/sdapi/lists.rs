//! What the server offers, in the forms of the web interface.

use axum::{extract::State, response::Json};
use serde_json::{Map, Value, json};

use crate::{
    diffusion::{SCHEDULE_TYPES, sampler_labels},
    generation::ControlUse,
    http::{caller::Caller, error::ApiError},
    service::Service,
};

/// `GET /sdapi/v1/sd-models`: the models that the caller can use. Their titles are their names, without hashes.
pub(super) async fn models(State(service): State<Service>, caller: Caller) -> Json<Value> {
    let usable = service.models().into_iter().filter(|model| model.draws() && caller.may_use(&model.name));
    let usable = usable.map(|model| model.name);
    let model = |name: String| {
        json!({
            "title": name, "model_name": name, "hash": null, "sha256": null, "filename": name, "config": null,
        })
    };
    Json(usable.map(model).collect())
}

/// `GET /sdapi/v1/samplers`.
pub(super) async fn samplers(_: Caller) -> Json<Value> {
    let sampler = |name: &str| json!({"name": name, "aliases": [], "options": {}});
    Json(sampler_labels().into_iter().map(sampler).collect())
}

/// `GET /sdapi/v1/schedulers`: the schedule types.
pub(super) async fn schedule_types(_: Caller) -> Json<Value> {
    let types = SCHEDULE_TYPES.iter().map(|kind| {
        json!({
            "name": kind.name, "label": kind.label, "aliases": null, "default_rho": -1.0, "need_inner_model": false,
        })
    });
    Json(types.collect())
}

/// `GET /sdapi/v1/loras`: the LoRAs that a model can use. `path` is also the name, because clients need no paths of the
/// server.
pub(super) async fn loras(State(service): State<Service>, _: Caller) -> Result<Json<Value>, ApiError> {
    let usable = service.loras().await?.into_iter().filter(|lora| lora.error.is_none());
    let lora = usable.map(|lora| json!({"name": lora.name, "alias": lora.name, "path": lora.name, "metadata": {}}));
    Ok(Json(lora.collect()))
}

/// `GET /sdapi/v1/embeddings`: the words of textual inversions, as they stand in prompts.
pub(super) async fn embeddings(State(service): State<Service>, _: Caller) -> Result<Json<Value>, ApiError> {
    let (mut loaded, mut skipped) = (Map::new(), Map::new());
    for embedding in service.embeddings().await? {
        let about = json!({"step": null, "sd_checkpoint": null, "sd_checkpoint_name": null});
        let group = if embedding.error.is_none() { &mut loaded } else { &mut skipped };
        group.insert(format!("<{}>", embedding.name), about);
    }
    Ok(Json(json!({"loaded": loaded, "skipped": skipped})))
}

/// The empty list of something that this server does not have, such as upscalers.
pub(super) async fn none(_: Caller) -> Json<Value> {
    Json(json!([]))
}

/// `GET /sdapi/v1/scripts`.
pub(super) async fn scripts(_: Caller) -> Json<Value> {
    Json(json!({"txt2img": ["controlnet"], "img2img": ["controlnet"]}))
}

/// `GET /sdapi/v1/script-info`.
pub(super) async fn script_info(_: Caller) -> Json<Value> {
    let script = |is_img2img| json!({"name": "controlnet", "is_alwayson": true, "is_img2img": is_img2img, "args": []});
    Json([false, true].map(script).into_iter().collect())
}

/// `GET /controlnet/version`: the version of the ControlNet extension whose units (the entries of
/// `alwayson_scripts.ControlNet.args`) this server reads.
pub(super) async fn control_net_version(_: Caller) -> Json<Value> {
    Json(json!({"version": 2}))
}

/// `GET /controlnet/model_list`.
pub(super) async fn control_nets(State(service): State<Service>, _: Caller) -> Json<Value> {
    Json(json!({ "model_list": control_net_names(&service) }))
}

fn control_net_names(service: &Service) -> Vec<String> {
    let usable =
        service.control_nets().into_iter().filter(|control_net| control_net.error.is_none() && !control_net.moves);
    usable.map(|control_net| control_net.name).collect()
}

/// The preprocessors.
const MODULES: [&str; 2] = ["none", "canny"];

/// `GET /controlnet/module_list`.
pub(super) async fn control_net_modules(_: Caller) -> Json<Value> {
    Json(json!({ "module_list": MODULES }))
}

/// `GET /controlnet/control_types`: a single type with all preprocessors and all ControlNets, because the name of a
/// ControlNet does not always tell its type.
pub(super) async fn control_types(State(service): State<Service>, _: Caller) -> Json<Value> {
    let names = [vec!["None".to_owned()], control_net_names(&service)].concat();
    let all = json!({
        "module_list": MODULES, "model_list": names, "default_option": "none", "default_model": "None",
    });
    Json(json!({"control_types": {"All": all}}))
}

/// `GET /controlnet/settings`: the largest number of units of ControlNet in a request.
pub(super) async fn control_net_settings(_: Caller) -> Json<Value> {
    Json(json!({"control_net_unit_count": ControlUse::MOST}))
}
