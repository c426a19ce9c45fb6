//! The protocol of AUTOMATIC1111's web interface, under `/sdapi/v1`: a request waits for its pictures, and the answer
//! contains them in base64.

mod control_net;
mod draw;
mod idle;
mod info;
mod lists;
mod machine;
mod notes;
mod options;
mod png_info;
mod pointers;
mod progress;
mod request;
mod unused;

use axum::{
    http::Method,
    routing::{MethodRouter, get, post},
};
use serde_json::json;

use super::{
    AppState,
    error::ProblemDocument,
    face::{Document, Face},
    route::Route,
};
use crate::generation::Record;

pub use options::ChosenModels;

/// The operations of this protocol.
pub fn routes() -> Vec<Route> {
    vec![
        endpoint(Method::POST, "/sdapi/v1/txt2img", post(draw::txt2img)),
        endpoint(Method::POST, "/sdapi/v1/img2img", post(draw::img2img)),
        endpoint(Method::GET, "/sdapi/v1/progress", get(progress::progress)),
        endpoint(Method::POST, "/sdapi/v1/interrupt", post(progress::interrupt)),
        endpoint(Method::POST, "/sdapi/v1/skip", post(progress::interrupt)),
        endpoint(Method::GET, "/sdapi/v1/options", get(options::get)),
        endpoint(Method::POST, "/sdapi/v1/options", post(options::set)),
        endpoint(Method::GET, "/sdapi/v1/sd-models", get(lists::models)),
        endpoint(Method::GET, "/sdapi/v1/samplers", get(lists::samplers)),
        endpoint(Method::GET, "/sdapi/v1/schedulers", get(lists::schedule_types)),
        endpoint(Method::GET, "/sdapi/v1/loras", get(lists::loras)),
        endpoint(Method::GET, "/sdapi/v1/embeddings", get(lists::embeddings)),
        endpoint(Method::GET, "/sdapi/v1/upscalers", get(lists::none)),
        endpoint(Method::GET, "/sdapi/v1/latent-upscale-modes", get(lists::none)),
        endpoint(Method::GET, "/sdapi/v1/sd-vae", get(lists::none)),
        endpoint(Method::GET, "/sdapi/v1/hypernetworks", get(lists::none)),
        endpoint(Method::GET, "/sdapi/v1/face-restorers", get(lists::none)),
        endpoint(Method::GET, "/sdapi/v1/realesrgan-models", get(lists::none)),
        endpoint(Method::GET, "/sdapi/v1/prompt-styles", get(lists::none)),
        endpoint(Method::POST, "/sdapi/v1/refresh-checkpoints", post(machine::unchanged)),
        endpoint(Method::POST, "/sdapi/v1/refresh-loras", post(machine::unchanged)),
        endpoint(Method::POST, "/sdapi/v1/refresh-embeddings", post(machine::unchanged)),
        endpoint(Method::POST, "/sdapi/v1/refresh-vae", post(machine::unchanged)),
        endpoint(Method::POST, "/sdapi/v1/unload-checkpoint", post(machine::unchanged)),
        endpoint(Method::POST, "/sdapi/v1/reload-checkpoint", post(machine::unchanged)),
        endpoint(Method::GET, "/sdapi/v1/scripts", get(lists::scripts)),
        endpoint(Method::GET, "/sdapi/v1/script-info", get(lists::script_info)),
        endpoint(Method::POST, "/sdapi/v1/png-info", post(png_info::png_info)),
        endpoint(Method::GET, "/sdapi/v1/memory", get(machine::memory)),
        endpoint(Method::GET, "/sdapi/v1/cmd-flags", get(machine::flags)),
        endpoint(Method::GET, "/controlnet/version", get(lists::control_net_version)),
        endpoint(Method::GET, "/controlnet/model_list", get(lists::control_nets)),
        endpoint(Method::GET, "/controlnet/module_list", get(lists::control_net_modules)),
        endpoint(Method::GET, "/controlnet/control_types", get(lists::control_types)),
        endpoint(Method::GET, "/controlnet/settings", get(lists::control_net_settings)),
        endpoint(Method::GET, "/internal/ping", get(machine::ping)),
    ]
}

fn endpoint(method: Method, path: &'static str, handler: MethodRouter<AppState>) -> Route {
    Route { method, path, routed: path, handler }
}

/// The entry of `metadata` that marks the generations of this protocol. `progress` and `interrupt` concern only
/// generations with this entry.
const LABEL: (&str, &str) = ("face", "sdapi");

/// Whether a request of this protocol created the generation.
fn is_own(record: &Record) -> bool {
    record.job.metadata.get(LABEL.0).is_some_and(|face| face == LABEL.1)
}

/// The protocol of `/sdapi/v1`, and of the other paths that clients of AUTOMATIC1111's web interface use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sdapi;

impl Face for Sdapi {
    fn render_error(&self, problem: &ProblemDocument) -> Document {
        let listed: Vec<&str> = problem.errors.iter().map(|error| error.detail.as_str()).collect();
        let errors = if listed.is_empty() { problem.detail.clone() } else { listed.join("; ") };
        let body = json!({
            "error": problem.code,
            "detail": problem.detail,
            "body": "",
            "errors": errors,
            "fields": problem.errors,
            "status": problem.status,
            "request_id": problem.request_id,
        });
        Document::of("application/json", &body)
    }
}
