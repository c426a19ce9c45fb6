//! The objects of answers: lines of progress, and the last line with the picture.

use axum::{
    http::{Extensions, header},
    response::{IntoResponse, Json, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::request::{About, Request};
use crate::{
    generation::{Artifact, Record, rfc3339},
    http::{AppState, error::ApiError, listener::AnswerRoom},
    service::offload,
};

/// A line before the picture is finished.
pub fn progress(about: &About, completed: u32, total: u32) -> Value {
    let mut line = line(about, false);
    line["completed"] = completed.into();
    line["total"] = total.into();
    line
}

/// The answer to a request that only asks to load the model.
pub fn loaded(request: &Request) -> Response {
    let mut line = line(&request.about, true);
    line["done_reason"] = "load".into();
    ([(header::CACHE_CONTROL, "no-store")], Json(line)).into_response()
}

/// The last object, with the picture. Also returns the permit for the memory of the picture, which the answer must
/// keep until the client has read the picture.
///
/// # Errors
/// The picture cannot be read, or earlier answers were not read in time ([`ApiError::AnswersUnread`]).
pub async fn last(
    state: &AppState,
    about: &About,
    record: &Record,
    artifacts: &[Artifact],
    extensions: &Extensions,
) -> Result<(Option<AnswerRoom>, Value), ApiError> {
    let artifact = artifacts.first().ok_or(ApiError::NotFound("generation or file"))?;
    let room = AnswerRoom::of(extensions, artifact.bytes.div_ceil(3) * 4).await?;
    let file = state.service.file(artifact).await?;
    let image = offload(file.len(), move || BASE64_STANDARD.encode(&file)).await;
    let (seed, steps) = (artifact.facts.seed(), record.job.work.steps());
    let mut line = progress(about, steps, steps);
    line["done"] = true.into();
    line["done_reason"] = "stop".into();
    line["image"] = image.into();
    line["seed"] = seed.into();
    line["generation"] = json!(record.id);
    if let Some(flagged) = artifact.flagged {
        line["flagged"] = flagged.into();
    }
    line["total_duration"] = record.finished_at.map(|end| nanoseconds(record.created_at, end)).into();
    line["load_duration"] = record.started_at.map(|start| nanoseconds(record.created_at, start)).into();
    let warnings = record.job.warnings.iter().chain(&about.ignored).collect::<Vec<_>>();
    line["warnings"] = json!(warnings);
    Ok((room, line))
}

/// The members of every object. `response` is empty, because only text models use this member.
fn line(about: &About, done: bool) -> Value {
    json!({"model": about.model, "created_at": rfc3339(OffsetDateTime::now_utc()), "response": "", "done": done})
}

fn nanoseconds(from: OffsetDateTime, to: OffsetDateTime) -> u64 {
    u64::try_from((to - from).whole_nanoseconds()).unwrap_or(0)
}
