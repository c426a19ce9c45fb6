//! `POST /v1/images` and `PUT /v1/images/{id}`, and the same below `/v1/audio` and `/v1/videos`: create a generation.
//! The answer is its object, a file or its events.

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{AppendHeaders, IntoResponse, Json, Response},
    routing::{MethodRouter, post},
};
use tracing::Instrument;

use super::{
    AppState,
    base::Base,
    caller::Caller,
    content,
    error::{ApiError, invalid, success},
    events, generation,
    idempotency::IdempotencyKey,
    negotiate::{Accept, Prefer, ResponseType},
    path::{ClientChosenId, Kind},
    presence::{Presence, Waits},
    tries::Request,
    url::Location,
    warnings,
};
use crate::{
    generation::{Artifact, Fields, Format, Record, Status, WorkKind},
    service::{CreateRequest, Repeatable, View, Waited},
};

/// `POST /v1/images`, `POST /v1/audio` and `POST /v1/videos`.
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Kind(kind): Kind,
    (accept, prefer): (Accept, Prefer),
    key: IdempotencyKey,
    base: Base,
    fields: Fields,
) -> Result<Response, ApiError> {
    let request = CreateRequest { caller, kind, fields, repeatable: key.repeatable(), format: None };
    answer(state, base, accept, prefer, request).await
}

/// `POST /v1/images.png`, `.jpg` or `.webp`, for shells: the answer is a picture in the format that the path names.
pub fn create_as(format: Format) -> MethodRouter<AppState> {
    let create = move |State(state): State<AppState>,
                       caller: Caller,
                       prefer: Prefer,
                       key: IdempotencyKey,
                       base: Base,
                       fields: Fields| async move {
        if Format::named_in(&fields, WorkKind::Draw).is_some_and(|named| named != format) {
            let (name, extension) = (format.name(), format.extension());
            let detail = format!("output.format must be {name} or absent: the path ends in .{extension}");
            return Err(invalid("/output/format", "conflict", detail));
        }
        let request =
            CreateRequest { caller, kind: WorkKind::Draw, fields, repeatable: key.repeatable(), format: None };
        answer(state, base, Accept::only(format), prefer, request).await
    };
    post(create)
}

/// `PUT /v1/images/{id}`, `PUT /v1/audio/{id}` and `PUT /v1/videos/{id}`: the client chooses the id, which makes the
/// request repeatable like an idempotency key.
pub async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Kind(kind): Kind,
    ClientChosenId(id): ClientChosenId,
    (accept, prefer): (Accept, Prefer),
    base: Base,
    fields: Fields,
) -> Result<Response, ApiError> {
    let request = CreateRequest { caller, kind, fields, repeatable: Repeatable::ById(id), format: None };
    answer(state, base, accept, prefer, request).await
}

/// Accepts the request, waits as long as the client wants, and answers.
async fn answer(
    state: AppState,
    base: Base,
    accept: Accept,
    prefer: Prefer,
    mut request: CreateRequest,
) -> Result<Response, ApiError> {
    let wanted = accept.answer(Format::named_in(&request.fields, request.kind))?;
    if let ResponseType::File(format) = wanted {
        if wants_many(&mut request.fields) {
            return Err(ApiError::MultipleImages(format.media_type()));
        }
        request.format = Some(format);
    }
    if wanted == ResponseType::Json && prefer.wait.is_none() {
        let created = state.service.create(request).await?;
        return Ok(marked(receipt(&state, &base, &created.view, &prefer), created.replayed));
    }
    let waits = if wanted == ResponseType::Json { Waits::ForObject } else { Waits::ForResult };
    let (view, replayed, presence) = state.accept(request, waits).await?;
    let answer = match wanted {
        ResponseType::Json => object(&state, &base, prefer, &view, presence).await,
        ResponseType::File(_) => file(&state, &accept, prefer, &view, presence).await,
        ResponseType::Events => {
            Ok((headers(Location::of(&view.record)), events::stream(state, base, &view.record, presence))
                .into_response())
        }
    };
    Ok(marked(answer.into_response(), replayed))
}

/// Marks an answer, or an error, about a generation that an earlier copy of the request created.
pub(super) fn marked(mut answer: Response, replayed: bool) -> Response {
    if replayed {
        answer.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    answer
}

async fn object(
    state: &AppState,
    base: &Base,
    prefer: Prefer,
    view: &View,
    mut presence: Presence,
) -> Result<Response, ApiError> {
    let waited = state.wait(&view.record, prefer.wait.unwrap_or_default()).await;
    presence.keep();
    let waited = waited?;
    Ok(receipt(state, base, &waited.view, &prefer.after(&waited)))
}

/// 200 with the finished generation, or 202 with `Location` and `Retry-After`.
fn receipt(state: &AppState, base: &Base, view: &View, prefer: &Prefer) -> Response {
    let pace = state.service.pace();
    let object = Json(generation::object(view, pace, &state.signer, base));
    let headers = (headers(Location::of(&view.record)), applied(prefer), [(header::CACHE_CONTROL, "no-store")]);
    if view.record.status.is_terminal() {
        return (headers, object).into_response();
    }
    let retry_after = [(header::RETRY_AFTER, generation::retry_after_s(view, pace).to_string())];
    (success::ACCEPTED, headers, retry_after, object).into_response()
}

async fn file(
    state: &AppState,
    accept: &Accept,
    prefer: Prefer,
    view: &View,
    mut presence: Presence,
) -> Result<Response, ApiError> {
    // An earlier copy of the request may have chosen another format by its Accept.
    if let Err(refusal) = accept.check(view.record.job.output.encoding.format()) {
        presence.keep();
        return Err(refusal);
    }
    let waited = state.wait(&view.record, prefer.wait.unwrap_or(prefer.default_wait)).await;
    presence.keep();
    let record = waited?.view.record;
    let at = Location::of(&record);
    let artifacts = state.artifacts(&record)?;
    let artifact = artifacts.into_iter().next().ok_or(ApiError::NotFound("generation or file"))?;
    let seed = artifact.facts.seed();
    let bytes = state.service.file(&artifact).await?;
    let where_from = [(header::CONTENT_LOCATION, at.artifact(0))];
    let seed = [(HeaderName::from_static("latentd-seed"), seed.to_string())];
    let warned = AppendHeaders(warnings::header(&record.job.warnings));
    // A request for a file always waits, so `Preference-Applied` must not name `respond-async`.
    let prefer = Prefer { respond_async: false, ..prefer };
    Ok((headers(at), applied(&prefer), where_from, seed, warned, content::file(&record, &artifact, bytes))
        .into_response())
}

/// Whether `n` asks for more than one picture. An invalid `n` is reported later, when the service checks all fields.
fn wants_many(fields: &mut Fields) -> bool {
    let Some(n) = fields.take("n") else {
        return false;
    };
    let many = n.as_f64().is_some_and(|n| n > 1.0);
    fields.put_back("n", n);
    many
}

pub(super) fn headers(at: Location) -> impl axum::response::IntoResponseParts {
    AppendHeaders([
        (header::LOCATION, at.path()),
        (HeaderName::from_static("latentd-generation-id"), at.id.to_string()),
        (header::VARY, "Accept, Prefer".to_owned()),
    ])
}

fn applied(prefer: &Prefer) -> impl axum::response::IntoResponseParts + use<> {
    AppendHeaders(prefer.applied().map(|applied| (HeaderName::from_static("preference-applied"), applied)))
}

impl AppState {
    /// Prepares the generation and accepts it. Preparing stops if the client disconnects; accepting is a task of its
    /// own. If the client disconnects between the commit and the answer, this future is dropped, but the task still
    /// makes the [`Presence`]. Dropping the presence then cancels the generation if the request wants that.
    pub(super) async fn accept(
        &self,
        request: CreateRequest,
        waits: Waits,
    ) -> Result<(View, bool, Presence), ApiError> {
        self.accept_of(request, waits, None).await
    }

    /// As [`AppState::accept`], for a client that may repeat the request; `tried` recognizes the repetitions.
    pub(super) async fn accept_of(
        &self,
        request: CreateRequest,
        waits: Waits,
        tried: Option<Request>,
    ) -> Result<(View, bool, Presence), ApiError> {
        let is_repeatable = request.repeatable.is_repeatable();
        let prepared = self.service.prepare(request).await?;
        let state = self.clone();
        let accepting = async move {
            let created = state.service.accept(prepared).await?;
            let present = tried.map(|request| state.tries.begin(request, created.view.record.id));
            let presence = Presence::of(&state, &created.view, waits, is_repeatable, present);
            Ok((created.view, created.replayed, presence))
        };
        let accepted = self.afterwork.spawn(accepting.in_current_span()).await;
        // The error of a panic would quote its message, which may contain parts of the request.
        accepted.unwrap_or_else(|_| Err(ApiError::Internal { cause: "accepting was interrupted".to_owned() }))
    }

    /// The artifacts of a generation that has succeeded; otherwise the error of its state.
    pub(super) fn artifacts(&self, record: &Record) -> Result<Vec<Artifact>, ApiError> {
        let at = Location::of(record);
        match &record.status {
            Status::Queued if self.service.is_drained() => Err(ApiError::Draining(Some(at))),
            Status::Queued | Status::Running => Err(ApiError::WaitTimeout(at)),
            Status::Canceled => Err(ApiError::Canceled(at)),
            Status::Expired => Err(ApiError::Expired(at)),
            Status::Failed { problem } => {
                Err(ApiError::Failed { at, code: problem.code.clone(), message: problem.message.clone() })
            }
            Status::Succeeded { artifacts } => Ok(artifacts.clone()),
        }
    }

    /// Waits until the generation ends, for at most `timeout`. Fails with [`ApiError::Draining`] as soon as the server
    /// stops.
    pub(super) async fn wait(&self, record: &Record, timeout: std::time::Duration) -> Result<Waited, ApiError> {
        tokio::select! {
            waited = self.service.wait(record, timeout) => Ok(waited?),
            () = self.draining.cancelled() => Err(ApiError::Draining(Some(Location::of(record)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn only_a_number_above_one_wants_many() {
        for (n, expected) in
            [(json!(1), false), (json!(2), true), (json!(2.0), true), (json!("2"), false), (json!(null), false)]
        {
            let mut fields = Fields::new(Map::from_iter([("n".to_owned(), n.clone())]));
            assert_eq!(wants_many(&mut fields), expected, "{n}");
        }
    }
}
