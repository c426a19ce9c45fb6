//! The operator's API on a listener of its own: generations of all tenants, workers, reloads of the catalogue.

use axum::{
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{
    AppState,
    base::Base,
    error::{ApiError, success},
    generation,
    list::{Collection, listed},
    path::{Id, WorkerName},
    urlencoded,
};
use crate::{
    catalogue::Reloaded,
    generation::{Record, rfc3339},
    ledger::{ListQuery, WorkerRecord},
    service::{Access, Service, View},
};

/// A generation with the fields that only the operator sees.
#[derive(Debug, Serialize)]
struct AdminGeneration {
    #[serde(flatten)]
    object: generation::Object,
    tenant: String,
    /// How many processes have ended while the generation ran, and how many devices were lost while they computed it.
    crash_count: u32,
    /// Whether the generation was given up after too many crashes.
    dead: bool,
}

impl AdminGeneration {
    fn of(object: generation::Object, record: &Record) -> AdminGeneration {
        AdminGeneration { object, tenant: record.tenant.clone(), crash_count: record.crash_count, dead: record.dead }
    }

    fn answer(state: &AppState, base: &Base, view: &View) -> Response {
        let object = generation::object(view, state.service.pace(), &state.signer, base);
        let seen = AdminGeneration::of(object, &view.record);
        ([(header::CACHE_CONTROL, "no-store")], Json(seen)).into_response()
    }
}

/// `GET /admin/generations`: lists the generations of all tenants or of one.
pub async fn generations(
    State(state): State<AppState>,
    base: Base,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut fields = urlencoded::query(query.as_deref())?;
    let (dead, tenant) = (fields.flag("dead").unwrap_or(false), fields.text("tenant", 64));
    let query = ListQuery { dead, tenant, ..ListQuery::read(&mut fields) };
    let own = [("dead", dead.then(|| "true".to_owned())), ("tenant", query.tenant.clone())];
    listed((&state, &base), fields, &query, ("/admin/generations", None), own, AdminGeneration::of).await
}

/// `POST /admin/generations/{id}/requeue`: queues a generation that was given up.
pub async fn requeue(State(state): State<AppState>, base: Base, Id(at): Id) -> Result<Response, ApiError> {
    let view = state.service.revive(at.id).await?;
    Ok(AdminGeneration::answer(&state, &base, &view))
}

/// `POST /admin/generations/{id}/kill`: cancels a generation of any tenant.
pub async fn kill(State(state): State<AppState>, base: Base, Id(at): Id) -> Result<Response, ApiError> {
    let view = state.service.cancel(Access::Full, at.id).await?;
    let answer = AdminGeneration::answer(&state, &base, &view);
    Ok(if view.record.status.is_terminal() { answer } else { (success::ACCEPTED, answer).into_response() })
}

#[derive(Debug, Serialize)]
struct WorkerObject {
    object: &'static str,
    id: String,
    version: String,
    models: Vec<String>,
    /// Generations that the worker is running.
    running: u32,
    /// Work done per second recently, in 10⁹ multiplications; `null` before the first generation has ended.
    speed: Option<f64>,
    draining: bool,
    started_at: String,
    /// Time of the latest heartbeat.
    beaten_at: String,
}

impl WorkerObject {
    fn of(worker: WorkerRecord) -> WorkerObject {
        let WorkerRecord { heartbeat, started_at, beaten_at, draining } = worker;
        WorkerObject {
            object: "worker",
            id: heartbeat.worker,
            version: heartbeat.version,
            models: heartbeat.models,
            running: heartbeat.running,
            speed: heartbeat.speed,
            draining,
            started_at: rfc3339(started_at),
            beaten_at: rfc3339(beaten_at),
        }
    }
}

/// `GET /admin/workers`.
pub async fn workers(State(service): State<Service>) -> Result<impl IntoResponse, ApiError> {
    Ok(Collection::of(service.workers().await?.into_iter().map(WorkerObject::of)))
}

/// `POST /admin/workers/{id}/drain`: tells a worker to claim no more generations.
pub async fn drain(State(service): State<Service>, WorkerName(name): WorkerName) -> Result<Response, ApiError> {
    order(&service, &name, true).await
}

/// `POST /admin/workers/{id}/undrain`: tells a drained worker to claim generations again.
pub async fn undrain(State(service): State<Service>, WorkerName(name): WorkerName) -> Result<Response, ApiError> {
    order(&service, &name, false).await
}

/// Stores the command to drain or undrain a worker. The worker obeys when it reads the command from the ledger.
async fn order(service: &Service, name: &str, drain: bool) -> Result<Response, ApiError> {
    let worker = service.drain_worker(name, drain).await?.ok_or(ApiError::NotFound("worker"))?;
    Ok((success::ACCEPTED, Json(WorkerObject::of(worker))).into_response())
}

/// What has changed in the folders of models and add-ons since they were last read.
#[derive(Debug, Serialize)]
struct Reload {
    object: &'static str,
    #[serde(flatten)]
    changes: Reloaded,
}

/// `POST /admin/reload`: reads the folders of models, LoRAs, textual inversions and ControlNets again.
pub async fn reload(State(service): State<Service>) -> Result<Response, ApiError> {
    Ok(Json(Reload { object: "reload", changes: service.reload().await? }).into_response())
}
