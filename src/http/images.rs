//! Reads, lists, cancels and erases generations: the paths below `/v1/images`, and the same paths below `/v1/audio`
//! and `/v1/videos`.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Json, Response},
};

use super::{
    AppState,
    base::Base,
    caller::Caller,
    error::{ApiError, success},
    etag, generation,
    list::{Links, listed},
    negotiate::Prefer,
    path::{Id, Kind},
    url::Location,
    urlencoded,
};
use crate::{
    ledger::ListQuery,
    service::{Service, View},
};

/// `GET /v1/images/{id}`; with `Prefer: wait` the answer waits for the end of the generation.
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    base: Base,
    Id(at): Id,
    prefer: Prefer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (view, applied) = match prefer.wait {
        Some(wait) => {
            let record = state.service.find(caller.access().of_kind(at.kind), at.id).await?;
            let waited = state.wait(&record, wait).await?;
            let applied = prefer.after(&waited);
            (waited.view, applied.wait.and_then(|_| applied.applied()))
        }
        None => (state.service.get(caller.access().of_kind(at.kind), at.id).await?, None),
    };
    let tag = generation::etag(&view, &state.signer);
    let applied =
        axum::response::AppendHeaders(applied.map(|value| (HeaderName::from_static("preference-applied"), value)));
    let head = (applied, [(header::CACHE_CONTROL, "no-store"), (header::VARY, "Accept, Prefer"), (header::ETAG, &tag)]);
    if etag::matches(&headers, &tag) {
        return Ok((success::NOT_MODIFIED, head).into_response());
    }
    Ok((head, object(&state, &base, &view)).into_response())
}

/// `GET /v1/images`.
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    base: Base,
    Kind(kind): Kind,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut fields = urlencoded::query(query.as_deref())?;
    let (tenant, kind_of_list) = (Some(caller.tenant.to_string()), Some(kind));
    let query = ListQuery { tenant, kind: kind_of_list, ..ListQuery::read(&mut fields) };
    let links = Links::of(&state, &base, &caller);
    listed((&state, &base), fields, &query, (kind.root(), Some(links)), [], |object, _| object).await
}

/// `POST /v1/images/{id}/cancel`: 202 while the run has yet to end, 200 if the generation has ended.
pub async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    base: Base,
    Id(at): Id,
) -> Result<Response, ApiError> {
    let view = state.service.cancel(caller.access().of_kind(at.kind), at.id).await?;
    let answer = ([(header::LOCATION, at.path())], [(header::CACHE_CONTROL, "no-store")], object(&state, &base, &view));
    match view.record.status.is_terminal() {
        true => Ok(answer.into_response()),
        false => Ok((success::ACCEPTED, answer).into_response()),
    }
}

/// `PUT /v1/images/{id}/star`: keeps a generation that succeeded.
pub async fn star(State(state): State<AppState>, caller: Caller, base: Base, Id(at): Id) -> Result<Response, ApiError> {
    set_star((&state, &caller, &base), at, true).await
}

/// `DELETE /v1/images/{id}/star`.
pub async fn unstar(
    State(state): State<AppState>,
    caller: Caller,
    base: Base,
    Id(at): Id,
) -> Result<Response, ApiError> {
    set_star((&state, &caller, &base), at, false).await
}

async fn set_star(
    (state, caller, base): (&AppState, &Caller, &Base),
    at: Location,
    starred: bool,
) -> Result<Response, ApiError> {
    let view = state.service.star(caller.access().of_kind(at.kind), at.id, starred).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], object(state, base, &view)).into_response())
}

/// `DELETE /v1/images/{id}`: erases a finished generation.
pub async fn delete(State(service): State<Service>, caller: Caller, Id(at): Id) -> Result<Response, ApiError> {
    service.delete(caller.access().of_kind(at.kind), at.id).await?;
    Ok(success::NO_CONTENT.into_response())
}

fn object(state: &AppState, base: &Base, view: &View) -> Json<generation::Object> {
    Json(generation::object(view, state.service.pace(), &state.signer, base))
}
