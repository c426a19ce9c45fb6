//! OpenAI's protocol for pictures: `POST /v1/images/generations`, `/edits` and `/variations`; and for films, below
//! `/v1/videos`. The generations of all protocols wait in the same queue.

mod answer;
mod client;
mod face;
mod request;
mod stream;
mod usage;
pub mod videos;

use std::time::Duration;

use axum::{extract::State, response::Response};

use super::{
    AppState,
    create::marked,
    error::ApiError,
    presence::{Presence, Waits},
    tries::Request,
};
use crate::{
    generation::{Fields, Status, Task, WorkKind},
    service::{CreateRequest, View, is_transparent, offload},
};

use client::Client;
use request::{Models, Wanted};

pub use face::OpenAi;

/// The longest wait for a generation. With usual settings, the generation's own time limits end it much earlier.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// What a request does. `Operation::events` gives the names of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Generation,
    Edit,
    Variation,
}

/// `POST /v1/images/generations`: draws pictures from a prompt.
pub async fn generations(State(state): State<AppState>, client: Client, fields: Fields) -> Result<Response, ApiError> {
    draw(Operation::Generation, state, client, fields).await
}

/// `POST /v1/images/edits`: changes a picture, or its transparent parts.
pub async fn edits(State(state): State<AppState>, client: Client, fields: Fields) -> Result<Response, ApiError> {
    draw(Operation::Edit, state, client, fields).await
}

/// `POST /v1/images/variations`: draws pictures that are similar to a picture.
pub async fn variations(State(state): State<AppState>, client: Client, fields: Fields) -> Result<Response, ApiError> {
    draw(Operation::Variation, state, client, fields).await
}

async fn draw(operation: Operation, state: AppState, client: Client, fields: Fields) -> Result<Response, ApiError> {
    let (mut fields, tried) = tried(&client, fields, WorkKind::Draw).await;
    let wanted = {
        let card = |model: &str| state.service.model(model).and_then(|model| model.card);
        let models = Models { default: state.service.default_model(), card: &card, limits: &state.limits };
        request::read(operation, &mut fields, &models)
    };
    let joined = match tried.filter(|_| client.is_retry) {
        Some(request) => join(&state, &client, request).await?,
        None => None,
    };
    let (view, replayed, presence) = match joined {
        Some((view, presence)) => (view, true, presence),
        None => accept(operation, &state, &client, fields, tried).await?,
    };
    let answer = match wanted.stream {
        true => stream::respond(state, operation, client, wanted, view.record, presence),
        false => whole(&state, &client, &wanted, &view, presence).await?,
    };
    Ok(marked(answer, replayed))
}

/// The digest by which repetitions of the request are recognized, if the client repeats its requests by itself.
async fn tried(client: &Client, fields: Fields, kind: WorkKind) -> (Fields, Option<Request>) {
    if !client.repeats {
        return (fields, None);
    }
    let (tenant, path) = (client.caller.tenant.clone(), client.path.clone());
    offload(fields.body_bytes(), move || {
        let request = Request::of(&tenant, &path, fields.fingerprint(kind));
        (fields, Some(request))
    })
    .await
}

/// The generation of an earlier try, unless it ended without files or was canceled.
async fn join(state: &AppState, client: &Client, request: Request) -> Result<Option<(View, Presence)>, ApiError> {
    let Some((id, present)) = state.tries.join(request) else { return Ok(None) };
    let Ok(view) = state.service.get(client.caller.access(), id).await else { return Ok(None) };
    let is_alive = match view.record.status {
        Status::Queued | Status::Running => !view.record.cancel_requested,
        Status::Succeeded { .. } => true,
        Status::Failed { .. } | Status::Canceled | Status::Expired => false,
    };
    let presence = || Presence::of(state, &view, Waits::ForResult, client.key.is_repeatable(), Some(present));
    Ok(is_alive.then(presence).map(|presence| (view.clone(), presence)))
}

async fn accept(
    operation: Operation,
    state: &AppState,
    client: &Client,
    mut fields: Fields,
    tried: Option<Request>,
) -> Result<(View, bool, Presence), ApiError> {
    if operation == Operation::Edit {
        fields = masked(state, fields).await;
    }
    let order = CreateRequest {
        caller: client.caller.clone(),
        kind: WorkKind::Draw,
        fields,
        repeatable: client.key.clone(),
        format: None,
    };
    state.accept_of(order, Waits::ForResult, tried).await
}

/// Reads the mask of an edit from the transparency of the picture in the field `mask`. If the request has no such
/// field, the model can inpaint, and the image has transparent parts, reads the mask from the transparency of the
/// image.
async fn masked(state: &AppState, mut fields: Fields) -> Fields {
    fields.read_mask_by_transparency();
    if fields.has("mask") {
        return fields;
    }
    let named = fields.take("model");
    let model = named.as_ref().and_then(|name| name.as_str()).unwrap_or(state.service.default_model());
    let card = state.service.model(model).and_then(|model| model.card);
    if let Some(named) = named {
        fields.put_back("model", named);
    }
    if !card.is_some_and(|card| card.tasks.contains(&Task::Inpaint)) {
        return fields;
    }
    let (mut fields, image) = offload(fields.body_bytes(), move || {
        let image = fields.image_file();
        (fields, image)
    })
    .await;
    if let Some(image) = image
        && is_transparent(image.clone()).await
    {
        fields.put_file("mask", image);
    }
    fields
}

/// Waits for the generation and answers with all of its pictures.
async fn whole(
    state: &AppState,
    client: &Client,
    wanted: &Wanted,
    view: &View,
    mut presence: Presence,
) -> Result<Response, ApiError> {
    let waited = state.wait(&view.record, LONGEST_WAIT).await;
    presence.keep();
    answer::respond(state, client, wanted, &waited?.view.record).await
}
