//! What the server has to offer: models, schedulers, and how busy it is.

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{AppState, caller::Caller, error::ApiError, path::ModelName};
use crate::{
    generation::{Limits, ModelCard},
    service::{AddOn, ModelView, Service},
};

#[derive(Debug, Serialize)]
struct List<T> {
    object: &'static str,
    data: Vec<T>,
}

impl<T> List<T> {
    fn of(data: impl Iterator<Item = T>) -> Json<List<T>> {
        Json(List { object: "list", data: data.collect() })
    }
}

/// A model in the shape that OpenAI's clients know, with what they do not.
#[derive(Debug, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    /// OpenAI's clients want a time; a folder has none that means anything.
    created: u32,
    owned_by: &'static str,
    state: &'static str,
    /// Memory that its weights take, whether they are loaded or not.
    bytes: Option<u64>,
    /// Whether a request that names no model gets this one.
    default: bool,
    error: Option<String>,
    /// What people should know of how its files were read.
    notes: Vec<String>,
    capabilities: Option<Capabilities>,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    #[serde(flatten)]
    card: ModelCard,
    #[serde(flatten)]
    limits: Limits,
    schedulers: Vec<String>,
}

impl Model {
    fn of(state: &AppState, model: ModelView) -> Model {
        let schedulers = || state.service.schedulers().into_iter().map(|scheduler| scheduler.name).collect();
        let capabilities = |card: &ModelCard| Capabilities {
            card: card.clone(),
            limits: Limits::clone(&state.limits),
            schedulers: schedulers(),
        };
        Model {
            object: "model",
            created: 0,
            owned_by: "latentd",
            state: model.state,
            bytes: model.bytes,
            default: model.name == state.service.default_model(),
            error: model.error,
            notes: model.notes,
            capabilities: model.card.as_deref().map(capabilities),
            id: model.name,
        }
    }
}

pub async fn models(State(state): State<AppState>, _: Caller) -> impl IntoResponse {
    List::of(state.service.models().into_iter().map(|model| Model::of(&state, model)))
}

/// A model, or what it takes: `NAME/schema`, unless a model has that name.
pub async fn model(State(state): State<AppState>, _: Caller, ModelName(name): ModelName) -> Result<Response, ApiError> {
    if let Some(model) = state.service.model(&name) {
        return Ok(Json(Model::of(&state, model)).into_response());
    }
    let named = name.strip_suffix("/schema").and_then(|name| state.service.model(name));
    let card = named.ok_or(ApiError::NotFound("model"))?.card;
    let card = card.ok_or(ApiError::NotFound("schema of a model that cannot be used"))?;
    let schema = state.service.request_schema(&card);
    Ok(([(CONTENT_TYPE, SCHEMA_TYPE)], schema.to_string()).into_response())
}

/// The media type of JSON Schemas.
const SCHEMA_TYPE: &str = "application/schema+json";

/// A LoRA or a textual inversion.
#[derive(Debug, Serialize)]
struct Adapter {
    object: &'static str,
    name: String,
    /// The size of its file.
    bytes: u64,
    state: &'static str,
    /// Why no model can use it.
    error: Option<String>,
    /// The models that can use it.
    models: Vec<String>,
}

impl Adapter {
    fn of(object: &'static str, add_on: AddOn) -> Adapter {
        let AddOn { name, bytes, error, models } = add_on;
        Adapter { object, name, bytes: bytes.unwrap_or_default(), state: state(error.as_ref()), error, models }
    }
}

/// Of what is read when it is asked for.
fn state(error: Option<&String>) -> &'static str {
    if error.is_some() { "failed" } else { "available" }
}

pub async fn loras(State(service): State<Service>, _: Caller) -> Result<impl IntoResponse, ApiError> {
    Ok(List::of(service.loras().await?.into_iter().map(|lora| Adapter::of("lora", lora))))
}

/// A textual inversion, and the word by which prompts name it.
#[derive(Debug, Serialize)]
struct Embedding {
    #[serde(flatten)]
    adapter: Adapter,
    word: String,
}

pub async fn embeddings(State(service): State<Service>, _: Caller) -> Result<impl IntoResponse, ApiError> {
    let embedding =
        |add_on: AddOn| Embedding { word: format!("<{}>", add_on.name), adapter: Adapter::of("embedding", add_on) };
    Ok(List::of(service.embeddings().await?.into_iter().map(embedding)))
}

#[derive(Debug, Serialize)]
struct ControlNet {
    object: &'static str,
    name: String,
    state: &'static str,
    /// Why no model can use it.
    error: Option<String>,
    /// The models that can use it.
    models: Vec<String>,
}

pub async fn control_nets(State(service): State<Service>, _: Caller) -> impl IntoResponse {
    let control_net = |AddOn { name, error, models, .. }: AddOn| ControlNet {
        object: "controlnet",
        state: state(error.as_ref()),
        name,
        error,
        models,
    };
    List::of(service.control_nets().into_iter().map(control_net))
}

#[derive(Debug, Serialize)]
struct Scheduler {
    object: &'static str,
    name: String,
    description: String,
}

pub async fn schedulers(State(service): State<Service>, _: Caller) -> impl IntoResponse {
    let schedulers = service.schedulers().into_iter();
    List::of(schedulers.map(|scheduler| Scheduler {
        object: "scheduler",
        name: scheduler.name,
        description: scheduler.description,
    }))
}

#[derive(Debug, Serialize)]
struct Queue {
    object: &'static str,
    queued: usize,
    running: usize,
    max_queued: usize,
    /// What a run took lately, from its beginning to its pictures.
    recent_run_seconds: Option<f64>,
    /// When a generation that is accepted now would begin.
    estimated_start_s: Option<f64>,
    own: Own,
    /// Of this process.
    devices: Vec<Device>,
}

#[derive(Debug, Serialize)]
struct Device {
    id: String,
    running: usize,
}

/// The caller's part of it.
#[derive(Debug, Serialize)]
struct Own {
    queued: usize,
    running: usize,
}

pub async fn queue(State(service): State<Service>, caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let (counts, own) = (service.counts().await?, service.counts_of(&caller.tenant).await?);
    let pace = service.pace();
    Ok(Json(Queue {
        object: "queue",
        queued: counts.queued,
        running: counts.running,
        max_queued: service.max_queued(),
        recent_run_seconds: pace.map(|pace| pace.run_seconds),
        estimated_start_s: service.estimated_wait().await?.map(|wait| wait.as_secs_f64()),
        own: Own { queued: own.queued, running: own.running },
        devices: service.devices().into_iter().map(|load| Device { id: load.name, running: load.running }).collect(),
    }))
}
