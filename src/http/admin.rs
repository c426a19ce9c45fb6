//! What the operator sees and does, on a listener of its own: all tenants' generations, keys, workers.

use axum::{
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{
    AppState,
    error::{ApiError, success},
    generation,
    list::listed,
    path::{Id, WorkerName},
    urlencoded,
};
use crate::{
    catalogue::Reloaded,
    generation::{Fields, Record, rfc3339},
    ledger::{ListQuery, WorkerRecord},
    service::{Access, Service, View},
};

/// A generation with what its client does not see.
#[derive(Debug, Serialize)]
struct Seen {
    #[serde(flatten)]
    object: generation::Object,
    tenant: String,
    /// How often a process ended while it ran.
    crash_count: u32,
    /// It was given up after too many of them.
    dead: bool,
}

impl Seen {
    fn of(object: generation::Object, record: &Record) -> Seen {
        Seen { object, tenant: record.tenant.clone(), crash_count: record.crash_count, dead: record.dead }
    }

    fn answer(state: &AppState, view: &View) -> Response {
        let seen = Seen::of(generation::object(view, state.service.pace(), &state.signer), &view.record);
        ([(header::CACHE_CONTROL, "no-store")], Json(seen)).into_response()
    }
}

pub async fn generations(State(state): State<AppState>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let mut fields = Fields::from_form(urlencoded::pairs(query.unwrap_or_default().as_bytes())?);
    let (dead, tenant) = (fields.flag("dead").unwrap_or(false), fields.text("tenant", 64));
    let query = ListQuery { dead, tenant, ..ListQuery::read(&mut fields) };
    listed(&state, fields, &query, "/admin/generations", Seen::of).await
}

/// Queues a generation again that was given up.
pub async fn requeue(State(state): State<AppState>, Id(id): Id) -> Result<Response, ApiError> {
    let view = state.service.revive(id).await?;
    Ok(Seen::answer(&state, &view))
}

/// Cancels any tenant's generation, as its client could.
pub async fn kill(State(state): State<AppState>, Id(id): Id) -> Result<Response, ApiError> {
    let view = state.service.cancel(Access::Full, id).await?;
    let answer = Seen::answer(&state, &view);
    Ok(if view.record.status.is_terminal() { answer } else { (success::ACCEPTED, answer).into_response() })
}

#[derive(Debug, Serialize)]
struct Worker {
    object: &'static str,
    id: String,
    version: String,
    models: Vec<String>,
    /// Generations in hand.
    running: u32,
    /// Rows times denoiser calls times megapixels a second, lately.
    speed: Option<f64>,
    draining: bool,
    started_at: String,
    /// Its last sign of life.
    beaten_at: String,
}

impl Worker {
    fn of(worker: WorkerRecord) -> Worker {
        let WorkerRecord { beat, started_at, beaten_at, draining } = worker;
        Worker {
            object: "worker",
            id: beat.worker,
            version: beat.version,
            models: beat.models,
            running: beat.running,
            speed: beat.speed,
            draining,
            started_at: rfc3339(started_at),
            beaten_at: rfc3339(beaten_at),
        }
    }
}

#[derive(Debug, Serialize)]
struct Workers {
    object: &'static str,
    data: Vec<Worker>,
}

pub async fn workers(State(service): State<Service>) -> Result<impl IntoResponse, ApiError> {
    let data = service.workers().await?.into_iter().map(Worker::of).collect();
    Ok(Json(Workers { object: "list", data }))
}

pub async fn drain(State(service): State<Service>, WorkerName(name): WorkerName) -> Result<Response, ApiError> {
    order(&service, &name, true).await
}

pub async fn undrain(State(service): State<Service>, WorkerName(name): WorkerName) -> Result<Response, ApiError> {
    order(&service, &name, false).await
}

/// The worker obeys as soon as it hears of it.
async fn order(service: &Service, name: &str, drain: bool) -> Result<Response, ApiError> {
    let worker = service.drain_worker(name, drain).await?.ok_or(ApiError::NotFound("worker"))?;
    Ok((success::ACCEPTED, Json(Worker::of(worker))).into_response())
}

/// What has changed in the folders of models since they were read before.
#[derive(Debug, Serialize)]
struct Reload {
    object: &'static str,
    #[serde(flatten)]
    changes: Reloaded,
}

/// Reads the folders of models, LoRAs, textual inversions and ControlNets again.
pub async fn reload(State(service): State<Service>) -> Result<Response, ApiError> {
    Ok(Json(Reload { object: "reload", changes: service.reload().await? }).into_response())
}

/// A key that was just made; the only time that it is shown.
#[derive(Debug, Serialize)]
struct NewKey {
    object: &'static str,
    id: String,
    key: String,
    tenant: String,
    weight: f64,
    max_queued: Option<u32>,
    max_running: Option<u32>,
}

pub async fn create_key(State(service): State<Service>, fields: Fields) -> Result<Response, ApiError> {
    let (key, record) = service.create_key(fields).await?;
    let made = NewKey {
        object: "key",
        key: key.expose().to_owned(),
        id: record.id,
        tenant: record.tenant,
        weight: record.weight,
        max_queued: record.max_queued,
        max_running: record.max_running,
    };
    Ok((success::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}
