//! What the server has to offer: models, schedulers, and how busy it is.

use axum::{
    extract::State,
    response::{IntoResponse, Json},
};
use serde::Serialize;

use super::{AppState, caller::Caller, error::ApiError, path::ModelName};
use crate::{
    generation::{Limits, ModelCard},
    service::{ModelView, Service},
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
            capabilities: model.card.as_deref().map(capabilities),
            id: model.name,
        }
    }
}

pub async fn models(State(state): State<AppState>, _: Caller) -> impl IntoResponse {
    List::of(state.service.models().into_iter().map(|model| Model::of(&state, model)))
}

pub async fn model(
    State(state): State<AppState>,
    _: Caller,
    ModelName(name): ModelName,
) -> Result<impl IntoResponse, ApiError> {
    let model = state.service.models().into_iter().find(|model| model.name == name);
    model.map(|model| Json(Model::of(&state, model))).ok_or(ApiError::NotFound("model"))
}

#[derive(Debug, Serialize)]
struct Lora {
    object: &'static str,
    name: String,
    /// The size of its file.
    bytes: u64,
}

pub async fn loras(State(service): State<Service>, _: Caller) -> impl IntoResponse {
    List::of(service.loras().into_iter().map(|(name, bytes)| Lora { object: "lora", name, bytes }))
}

#[derive(Debug, Serialize)]
struct ControlNet {
    object: &'static str,
    name: String,
    /// Why it cannot be used, if it cannot.
    error: Option<String>,
}

pub async fn control_nets(State(service): State<Service>, _: Caller) -> impl IntoResponse {
    let control_nets = service.control_nets().into_iter();
    List::of(control_nets.map(|(name, error)| ControlNet { object: "controlnet", name, error }))
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
        estimated_start_s: pace.map(|pace| pace.until_start(counts.queued)),
        own: Own { queued: own.queued, running: own.running },
    }))
}
