//! What the server offers: models, LoRAs, textual inversions, ControlNets, schedulers; and how busy it is.

use axum::{
    extract::{RawQuery, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{AppState, caller::Caller, error::ApiError, list::Collection, path::ModelName, urlencoded};
use crate::{
    generation::{Limits, ModelCard, Priority, WorkKind},
    service::{AddOn, Load, ModelView, Service},
};

/// A model: the fields that OpenAI's clients know, and further ones.
#[derive(Debug, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    /// Always 0. OpenAI's clients expect a time, but the folder of a model has no meaningful time.
    created: u32,
    owned_by: &'static str,
    state: &'static str,
    /// Memory that the weights take when they are loaded, in bytes.
    bytes: Option<u64>,
    /// Whether requests that name no model use this model.
    default: bool,
    error: Option<String>,
    /// Notes for users about how the model's files were read.
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
        let capabilities = |card: &ModelCard| Capabilities {
            card: card.within(&state.limits),
            limits: Limits::clone(&state.limits),
            schedulers: state.service.schedulers_of(card),
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

/// `GET /v1/models`: the models that the caller may use.
pub async fn models(State(state): State<AppState>, caller: Caller) -> impl IntoResponse {
    let models = state.service.models().into_iter().filter(|model| caller.may_use(&model.name));
    Collection::of(models.map(|model| Model::of(&state, model)))
}

/// `GET /v1/models/{id}`: a model. If no model has the name `NAME/schema`, this id stands for the JSON Schema of
/// requests to the model `NAME` (for the kind of work that the query names). If no model has the name `NAME/card`, this
/// id stands for the model card of `NAME`. A model that the caller may not use counts as unknown.
pub async fn model(
    State(state): State<AppState>,
    caller: Caller,
    ModelName(name): ModelName,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let find = |name: &str| state.service.model(name).filter(|model| caller.may_use(&model.name));
    if let Some(model) = find(&name) {
        return Ok(Json(Model::of(&state, model)).into_response());
    }
    if let Some(model) = name.strip_suffix("/card").and_then(find) {
        let card = state.service.model_card(model.name).await?.ok_or(ApiError::NotFound("card of this model"))?;
        return Ok(([(CONTENT_TYPE, CARD_TYPE)], card).into_response());
    }
    let named = name.strip_suffix("/schema").and_then(find);
    let card = named.ok_or(ApiError::NotFound("model"))?.card;
    let card = card.ok_or(ApiError::NotFound("usable model of this name"))?;
    let kind = match urlencoded::query(query.as_deref())?.text("kind", 16).as_deref() {
        None => card.work_kind(),
        Some(named) => {
            let kind = KINDS.into_iter().find(|(name, kind)| *name == named && card.does(*kind));
            kind.ok_or(ApiError::NotFound("work of this kind by the model"))?.1
        }
    };
    let schema = state.service.request_schema(kind, &card);
    Ok(([(CONTENT_TYPE, SCHEMA_TYPE)], schema.to_string()).into_response())
}

/// The names of the kinds of work in queries.
const KINDS: [(&str, WorkKind); 3] = [("image", WorkKind::Draw), ("audio", WorkKind::Sound), ("video", WorkKind::Film)];

/// The media type of model cards. Browsers show such a file as text, or download it.
const CARD_TYPE: &str = "text/markdown; charset=utf-8";

/// The media type of JSON Schemas.
const SCHEMA_TYPE: &str = "application/schema+json";

/// A LoRA or a textual inversion.
#[derive(Debug, Serialize)]
struct Adapter {
    object: &'static str,
    name: String,
    /// Size of the file in bytes.
    bytes: u64,
    state: &'static str,
    /// Why no model can use the adapter.
    error: Option<String>,
    /// Names of the models that can use the adapter.
    models: Vec<String>,
}

impl Adapter {
    fn of(object: &'static str, add_on: AddOn) -> Adapter {
        let AddOn { name, bytes, error, models, .. } = add_on;
        Adapter { object, name, bytes: bytes.unwrap_or_default(), state: state(error.as_ref()), error, models }
    }
}

/// The state of an add-on. `available` means that a request can use the add-on. The first such request reads the file
/// of the add-on.
fn state(error: Option<&String>) -> &'static str {
    if error.is_some() { "failed" } else { "available" }
}

/// `GET /v1/loras`.
pub async fn loras(State(service): State<Service>, _: Caller) -> Result<impl IntoResponse, ApiError> {
    Ok(Collection::of(service.loras().await?.into_iter().map(|lora| Adapter::of("lora", lora))))
}

/// A textual inversion, and the word that stands for it in prompts.
#[derive(Debug, Serialize)]
struct Embedding {
    #[serde(flatten)]
    adapter: Adapter,
    word: String,
}

/// `GET /v1/embeddings`.
pub async fn embeddings(State(service): State<Service>, _: Caller) -> Result<impl IntoResponse, ApiError> {
    let embedding =
        |add_on: AddOn| Embedding { word: format!("<{}>", add_on.name), adapter: Adapter::of("embedding", add_on) };
    Ok(Collection::of(service.embeddings().await?.into_iter().map(embedding)))
}

#[derive(Debug, Serialize)]
struct ControlNet {
    object: &'static str,
    /// `controlnet`, or `motion_adapter`. A network that cannot be read counts as a ControlNet.
    kind: &'static str,
    name: String,
    state: &'static str,
    /// Why no model can use the network.
    error: Option<String>,
    /// The models that can use the network.
    models: Vec<String>,
}

/// `GET /v1/controlnets`: the ControlNets and the motion adapters.
pub async fn control_nets(State(service): State<Service>, _: Caller) -> impl IntoResponse {
    let control_net = |AddOn { name, error, models, moves, .. }: AddOn| ControlNet {
        object: "controlnet",
        kind: if moves { "motion_adapter" } else { "controlnet" },
        state: state(error.as_ref()),
        name,
        error,
        models,
    };
    Collection::of(service.control_nets().into_iter().map(control_net))
}

#[derive(Debug, Serialize)]
struct Scheduler {
    object: &'static str,
    name: String,
    description: String,
}

/// `GET /v1/schedulers`.
pub async fn schedulers(State(service): State<Service>, _: Caller) -> impl IntoResponse {
    let schedulers = service.schedulers().into_iter();
    Collection::of(schedulers.map(|scheduler| Scheduler {
        object: "scheduler",
        name: scheduler.name,
        description: scheduler.description,
    }))
}

#[derive(Debug, Serialize)]
struct QueueObject {
    object: &'static str,
    queued: usize,
    running: usize,
    max_queued: usize,
    /// Average duration of recent runs; `None` before the first run has ended.
    recent_run_seconds: Option<f64>,
    /// Seconds until a generation that is accepted now would begin.
    estimated_start_s: Option<f64>,
    own: Own,
    /// Devices of this process.
    devices: Vec<Device>,
}

#[derive(Debug, Serialize)]
struct Device {
    id: String,
    running: usize,
    failed: bool,
}

fn device(load: Load) -> Device {
    Device { id: load.name, running: load.running, failed: load.failed }
}

/// The numbers of queued and of running generations of the caller's tenant.
#[derive(Debug, Serialize)]
struct Own {
    queued: usize,
    running: usize,
}

/// `GET /v1/queue`.
pub async fn queue(State(service): State<Service>, caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let (counts, own) = (service.counts().await?, service.counts_of(&caller.tenant).await?);
    let pace = service.pace();
    Ok(Json(QueueObject {
        object: "queue",
        queued: counts.queued,
        running: counts.running,
        max_queued: service.max_queued(),
        recent_run_seconds: pace.map(|pace| pace.run_seconds),
        estimated_start_s: service
            .estimated_wait(&caller.tenant, Priority::Normal)
            .await?
            .map(|wait| wait.as_secs_f64()),
        own: Own { queued: own.queued, running: own.running },
        devices: service.devices().into_iter().map(device).collect(),
    }))
}
