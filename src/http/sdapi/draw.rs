//! `txt2img` and `img2img`: draw, wait, and answer with the pictures.

use std::time::Duration;

use axum::{
    Extension,
    extract::State,
    http::{Extensions, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::json;

use super::{
    info,
    options::model_of,
    request::{self, Kind},
};
use crate::{
    generation::{Fields, Status, WorkKind},
    http::{
        AppState, caller::Caller, error::ApiError, face::Document, idempotency::IdempotencyKey, listener::AnswerRoom,
        presence::Waits,
    },
    imaging,
    service::{CreateRequest, Repeatable, View, offload},
};

/// `POST /sdapi/v1/txt2img`.
pub(super) async fn txt2img(
    State(state): State<AppState>,
    caller: Caller,
    key: IdempotencyKey,
    extensions: Extensions,
    fields: Fields,
) -> Result<Response, ApiError> {
    draw(state, caller, key, (extensions, fields), Kind::TextToImage).await
}

/// `POST /sdapi/v1/img2img`.
pub(super) async fn img2img(
    State(state): State<AppState>,
    caller: Caller,
    key: IdempotencyKey,
    extensions: Extensions,
    fields: Fields,
) -> Result<Response, ApiError> {
    draw(state, caller, key, (extensions, fields), Kind::ImageToImage).await
}

async fn draw(
    state: AppState,
    caller: Caller,
    key: IdempotencyKey,
    (extensions, mut fields): (Extensions, Fields),
    kind: Kind,
) -> Result<Response, ApiError> {
    let settings = fields.take("override_settings");
    let model = model_of(&state, &caller, settings.as_ref());
    if let Some(settings) = settings {
        fields.put_back("override_settings", settings);
    }
    let card = state.service.model(&model).and_then(|model| model.card);
    let mut request = request::read(fields, kind, card.as_deref())?;
    request.fields.put_back("model", model.into());
    let repeatable = match (request.task_id.take(), key.repeatable()) {
        (Some(id), Repeatable::No) => Repeatable::ByKey(checked(id)?),
        (_, key) => key,
    };
    let fields = std::mem::replace(&mut request.fields, Fields::new(Default::default()));
    let create = CreateRequest { caller, kind: WorkKind::Draw, fields, repeatable, format: None };
    let accepted = state.accept(create, Waits::ForResult).await;
    let (view, _, mut presence) = accepted.map_err(|error| request.renamed(error))?;
    let draw = view.record.job.work.draw().cloned().ok_or(ApiError::NotFound("picture of this request"))?;
    request.note_sizes(&draw);
    let waited = state.wait(&view.record, longest(&view)).await;
    presence.keep();
    let view = waited?.view;
    let artifacts = match view.record.status {
        // In the web interface, an interrupted request is no error, so the answer has a note instead of pictures.
        Status::Canceled => {
            request.notes.push("the generation was canceled before it had a picture".to_owned());
            Vec::new()
        }
        _ => state.artifacts(&view.record)?,
    };
    let bytes = artifacts.iter().map(|artifact| artifact.bytes.div_ceil(3) * 4).sum();
    let room = AnswerRoom::of(&extensions, if request.sends_images { bytes } else { 0 }).await?.map(Extension);
    let mut files = Vec::with_capacity(artifacts.len());
    for artifact in &artifacts {
        files.push(state.service.file(artifact).await?);
    }
    let id = [("latentd-generation-id", view.record.id.to_string())];
    let bytes = files.iter().map(Bytes::len).sum();
    let answer = offload(bytes, move || {
        let infotexts = files.iter().map(|file| imaging::infotext_of(file).unwrap_or_default()).collect();
        let images: Vec<String> = match request.sends_images {
            true => files.iter().map(|file| BASE64_STANDARD.encode(file)).collect(),
            false => Vec::new(),
        };
        let info = info::object(&view.record, &draw, infotexts, &request.notes.texts()).to_string();
        Document::of("application/json", &json!({"images": images, "parameters": request.echo, "info": info}))
    });

    Ok(([(header::CACHE_CONTROL, "no-store")], id, room, answer.await).into_response())
}

/// How long a request waits for its generation: the time until the generation must start, the time limits of all its
/// attempts, and a minute. Waiting in the queue between two attempts can take longer; then the generation goes on
/// without the request.
fn longest(view: &View) -> Duration {
    let runs = u64::from(view.run_timeout_s) * u64::from(view.max_attempts.max(1));
    Duration::from_secs(u64::from(view.record.job.start_timeout_s) + runs + 60)
}

/// Checks `force_task_id`, which serves as the idempotency key.
fn checked(id: String) -> Result<String, ApiError> {
    match (1..=255).contains(&id.len()) && id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => Ok(id),
        false => Err(ApiError::IdempotencyKeyInvalid("in force_task_id must have 1 to 255 printable ASCII characters")),
    }
}
