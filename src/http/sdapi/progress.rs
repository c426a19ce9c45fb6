//! `GET /sdapi/v1/progress` and `POST /sdapi/v1/interrupt`, which concern the generations that the caller's tenant has
//! created through this protocol.

use axum::{
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Json},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::is_own;
use crate::{
    generation::{Fields, GenerationId, Invalid, Preview},
    http::{AppState, caller::Caller, error::ApiError, urlencoded},
    ledger::ListQuery,
    service::View,
};

/// The progress of the newest running generation, otherwise of the newest queued one. If there is none, all values are
/// 0 or empty.
pub(super) async fn progress(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    let skips_picture = skips_picture(urlencoded::query(query.as_deref())?)?;
    let active = active(&state, &caller, Search::Newest).await?;
    let Some(newest) = active.first() else { return Ok(answer(idle())) };
    let view = state.service.get(caller.access(), *newest).await?;
    let preview = if skips_picture { None } else { state.service.preview(caller.access(), *newest).await? };
    Ok(answer(object(&view, active.len(), preview.as_ref())))
}

/// Reads `skip_current_image` in the spellings that the web interface accepts. Ignores other parameters, as the web
/// interface does.
fn skips_picture(mut query: Fields) -> Result<bool, ApiError> {
    let Some(value) = query.take("skip_current_image") else { return Ok(false) };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_ascii_lowercase);
    match text.as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => {
            query.take_all();
            query.error("skip_current_image", "wrong_type", "must be true or false");
            Err(ApiError::Invalid(Invalid { errors: query.finish() }))
        }
    }
}

fn answer(object: Value) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Json(object))
}

/// Cancels all running and queued generations that the caller's tenant has created through this protocol.
pub(super) async fn interrupt(State(state): State<AppState>, caller: Caller) -> Result<impl IntoResponse, ApiError> {
    for id in active(&state, &caller, Search::All).await? {
        state.service.cancel(caller.access(), id).await?;
    }
    Ok(Json(json!({})))
}

/// Generations in one page of the store.
const PAGE: usize = 100;
/// Maximum number of pages of running and of queued generations that are read to find the newest generation. Clients
/// ask for the progress several times per second.
const MOST_PAGES: usize = 20;

/// Which generations are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// Reads pages until a generation of this protocol is found, at most [`MOST_PAGES`] for each status. The result has
    /// all generations of this protocol that are in these pages.
    Newest,
    /// Reads everything.
    All,
}

/// The tenant's generations of this protocol that have yet to end: first the running and then the queued generations,
/// the newest first among each. The tenant's generations of other protocols are skipped.
async fn active(state: &AppState, caller: &Caller, search: Search) -> Result<Vec<GenerationId>, ApiError> {
    let pages = if search == Search::All { usize::MAX } else { MOST_PAGES };
    let mut found = Vec::new();
    for status in ["running", "queued"] {
        let mut query = ListQuery {
            limit: PAGE,
            status: Some(status.to_owned()),
            tenant: Some(caller.tenant.to_string()),
            ..ListQuery::default()
        };
        for _ in 0..pages {
            let page = state.service.list(&query).await?;
            query.after = page.views.last().map(|view| view.record.id);
            found.extend(page.views.iter().filter(|view| is_own(&view.record)).map(|view| view.record.id));
            if !page.has_more || (search == Search::Newest && !found.is_empty()) {
                break;
            }
        }
    }
    Ok(found)
}

/// The progress of a generation; `jobs` is the number of generations that have yet to end.
pub(super) fn object(view: &View, jobs: usize, preview: Option<&Preview>) -> Value {
    let (percent, eta) = match view.progress {
        Some(progress) => (f64::from(progress.percent), progress.eta_s.unwrap_or_default()),
        None => (0.0, 0.0),
    };
    let (step, steps) = view.progress.map_or((0, 0), |progress| (progress.step, progress.steps));
    let text = match view.place {
        Some(place) => format!("In queue: {}", place.position + 1),
        None => String::new(),
    };
    json!({
        "progress": (percent / 100.0).clamp(0.0, 1.0),
        "eta_relative": eta,
        "state": {
            "skipped": false,
            "interrupted": view.record.cancel_requested,
            "stopping_generation": view.record.cancel_requested,
            "job": view.record.id,
            "job_count": jobs,
            "job_timestamp": crate::generation::rfc3339(view.record.created_at),
            "job_no": 0,
            "sampling_step": step,
            "sampling_steps": steps,
        },
        "current_image": preview.map(|preview| BASE64_STANDARD.encode(&preview.bytes)),
        "textinfo": text,
    })
}

fn idle() -> Value {
    json!({
        "progress": 0.0,
        "eta_relative": 0.0,
        "state": {
            "skipped": false, "interrupted": false, "stopping_generation": false, "job": "", "job_count": 0,
            "job_timestamp": "", "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
        },
        "current_image": null,
        "textinfo": "",
    })
}
