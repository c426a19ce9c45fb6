//! Whether the server lives, whether it is ready, and its numbers.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Json},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use crate::{metrics::Metrics, service::Service};

/// For load balancers in front of the public listener: 503 as soon as the server stops taking work.
pub async fn health(State(draining): State<CancellationToken>) -> Result<impl IntoResponse, ApiError> {
    if draining.is_cancelled() { Err(ApiError::Draining(None)) } else { Ok(Json(json!({"status": "ok"}))) }
}

/// The process answers; nothing else is asked.
pub async fn live() -> impl IntoResponse {
    Json(json!({"status": "ok"}))
}

pub async fn ready(State(service): State<Service>) -> Result<impl IntoResponse, ApiError> {
    let reasons = service.unready_reasons().await;
    if reasons.is_empty() {
        Ok(Json(json!({"status": "ready", "reasons": []})))
    } else {
        Err(ApiError::Unready(reasons))
    }
}

/// For probes of the start: ready once what is to be loaded at the start has been, whatever becomes of it later. Does not ask
/// the database, which the server has found before it listened.
pub async fn started(State(service): State<Service>) -> Result<impl IntoResponse, ApiError> {
    let reasons = service.unstarted();
    if reasons.is_empty() {
        Ok(Json(json!({"status": "started", "reasons": []})))
    } else {
        Err(ApiError::Unready(reasons))
    }
}

pub async fn metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}
