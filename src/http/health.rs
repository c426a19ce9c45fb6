//! Health, readiness and metrics of the server.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Json},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use crate::{metrics::Metrics, service::Service};

/// `GET /health`, for load balancers in front of the public listener: 503 as soon as the server begins to stop.
pub async fn health(State(draining): State<CancellationToken>) -> Result<impl IntoResponse, ApiError> {
    if draining.is_cancelled() { Err(ApiError::Draining(None)) } else { Ok(Json(json!({"status": "ok"}))) }
}

/// `GET /livez`: the process answers; nothing else is checked.
pub async fn live() -> impl IntoResponse {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: whether the server takes work.
pub async fn ready(State(service): State<Service>) -> Result<impl IntoResponse, ApiError> {
    let reasons = service.unready_reasons().await;
    if reasons.is_empty() {
        Ok(Json(json!({"status": "ready", "reasons": []})))
    } else {
        Err(ApiError::Unready(reasons))
    }
}

/// `GET /startupz`: ready once the models that must be loaded at the start have been loaded, even if they leave memory
/// later. The database is not asked, because the server begins to listen only after it has reached the database.
pub async fn started(State(service): State<Service>) -> Result<impl IntoResponse, ApiError> {
    let reasons = service.unstarted();
    if reasons.is_empty() {
        Ok(Json(json!({"status": "started", "reasons": []})))
    } else {
        Err(ApiError::Unready(reasons))
    }
}

/// `GET /metrics`: the metrics in Prometheus's text format.
pub async fn metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}
