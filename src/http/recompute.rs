//! Makes a verified file again and compares the bytes.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{AppState, caller::Caller, error::ApiError, negotiate::Prefer, presence::Waits};
use crate::{
    generation::{Fields, Format, GenerationId, WorkKind},
    provenance::{Report, Verdict},
    service::{CreateRequest, Repeatable},
};

/// The comparison of a file with the one that its request makes now.
#[derive(Debug, Serialize)]
pub struct Recomputed {
    result: Outcome,
    /// The generation that made the file again.
    generation: Option<GenerationId>,
    detail: String,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The request makes the same bytes, apart from the credentials.
    Same,
    Different,
    /// The request cannot be repeated.
    Impossible,
}

/// Makes the file again with the request in the credentials, as a new generation of the caller, and compares its
/// digest with the one in the credentials.
///
/// # Errors
/// The refusals of a full queue or of the caller's limits, and the errors of a generation that fails or takes too long.
pub async fn recompute(
    state: &AppState,
    caller: Caller,
    prefer: Prefer,
    report: &Report,
) -> Result<Recomputed, ApiError> {
    let impossible =
        |detail: &str| Recomputed { result: Outcome::Impossible, generation: None, detail: detail.to_owned() };
    if report.verdict != Verdict::Intact || !report.by_this_server {
        return Ok(impossible("only an intact file of this server can be made again"));
    }
    let said = |name: &str| report.generation.as_ref().and_then(|generation| generation.get(name));
    let (Some(Value::Object(request)), Some(Value::String(digest))) = (said("request"), said("unsigned_sha256")) else {
        return Ok(impossible("the credentials do not contain the request; output.metadata was not full"));
    };
    // Images that share a random generator are drawn together, and the request is for all of them.
    let is_alone = request.get("n").and_then(Value::as_u64) == Some(1);
    let index = if is_alone { 0 } else { said("index").and_then(Value::as_u64).unwrap_or_default() };
    let request = CreateRequest {
        caller,
        kind: kind_of(report, request),
        fields: Fields::new(request.clone()),
        repeatable: Repeatable::No,
        format: None,
    };
    let (view, _, mut presence) = match state.accept(request, Waits::ForResult).await {
        Err(ApiError::Invalid(invalid)) => {
            return Ok(impossible(&format!("this server refuses the request now: {invalid}")));
        }
        accepted => accepted?,
    };
    let waited = state.wait(&view.record, prefer.wait.unwrap_or(prefer.default_wait)).await;
    presence.keep();
    let record = waited?.view.record;
    let artifact = state.artifacts(&record)?.into_iter().find(|artifact| u64::from(artifact.index) == index);
    let artifact = artifact.ok_or(ApiError::NotFound("generation or file"))?;
    let is_same = artifact.unsigned_sha256.as_ref().unwrap_or(&artifact.sha256) == digest;
    let (result, detail) = match is_same {
        true => (Outcome::Same, "the request makes the same bytes, apart from the content credentials"),
        false => (
            Outcome::Different,
            "the request makes other bytes now; another build, kind of processor or model makes other bytes, too",
        ),
    };
    Ok(Recomputed { result, generation: Some(record.id), detail: detail.to_owned() })
}

/// The kind of work of a request in the credentials of a file. Only requests for films have frames.
fn kind_of(report: &Report, request: &Map<String, Value>) -> WorkKind {
    match report.content_type {
        sound if Format::SOUNDS.iter().any(|format| format.media_type() == sound) => WorkKind::Sound,
        _ if request.contains_key("frames") => WorkKind::Film,
        _ => WorkKind::Draw,
    }
}
