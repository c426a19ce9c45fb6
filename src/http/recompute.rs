//! Draws the picture of a verified file again and compares the bytes.

use serde::Serialize;
use serde_json::Value;

use super::{AppState, caller::Caller, error::ApiError, negotiate::Prefer, presence::Waits};
use crate::{
    generation::{Fields, GenerationId, WorkKind},
    provenance::{Report, Verdict},
    service::{CreateRequest, Repeatable},
};

/// The comparison of a file with the picture that its request draws now.
#[derive(Debug, Serialize)]
pub struct Recomputed {
    result: Outcome,
    /// The generation that drew the picture again.
    generation: Option<GenerationId>,
    detail: String,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The request draws the same bytes, apart from the credentials.
    Same,
    Different,
    /// The request cannot be drawn again.
    Impossible,
}

/// Draws the picture again with the request in the credentials, as a new generation of the caller, and compares its
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
        return Ok(impossible("only an intact picture of this server can be drawn again"));
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
        kind: WorkKind::Draw,
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
        true => (Outcome::Same, "the request draws the same bytes, apart from the content credentials"),
        false => (
            Outcome::Different,
            "the request draws other bytes now; another build, kind of processor or model draws other bytes, too",
        ),
    };
    Ok(Recomputed { result, generation: Some(record.id), detail: detail.to_owned() })
}
