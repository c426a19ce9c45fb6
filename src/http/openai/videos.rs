//! OpenAI's protocol for films, on the paths of the native protocol: `/v1/videos`, `/v1/videos/{id}` and
//! `/v1/videos/{id}/content`. Requests of OpenAI's clients get answers in OpenAI's form, all others in the native form.

mod object;
mod request;

use axum::{
    extract::{FromRequestParts, RawQuery, State},
    http::{Extensions, HeaderMap, header, request::Parts},
    response::{IntoResponse, Json, Response},
};
use serde_json::json;

use super::{Client, OpenAi, join, tried};
use crate::{
    generation::{Fields, GenerationId, Invalid, WorkKind},
    http::{
        AppState,
        base::Base,
        caller::Caller,
        content,
        create::{self, marked},
        error::{ApiError, invalid},
        face::Face,
        idempotency::IdempotencyKey,
        images,
        list::Page,
        negotiate::{Accept, Prefer},
        path::{Content, Id, Kind, segment},
        presence::Waits,
        url::Location,
        urlencoded,
    },
    ledger::ListQuery,
    service::CreateRequest,
};

use object::{PREFIX, Video, id_of};

/// A header of all requests of OpenAI's SDKs.
const SDK: &str = "x-stainless-lang";
const ROOT: &str = "/v1/videos";

/// Whether the answer to a request below `/v1/videos` has OpenAI's form. This is so if the path contains an id of
/// OpenAI's form, if the path exists only in OpenAI's protocol, or if the client is an SDK of OpenAI.
pub fn speaks(path: &str, headers: &HeaderMap) -> bool {
    let Some(rest) = path.strip_prefix(ROOT) else { return false };
    match rest.strip_prefix('/') {
        Some(below) => below.starts_with(PREFIX) || below.ends_with("/content") || headers.contains_key(SDK),
        None => rest.is_empty() && headers.contains_key(SDK),
    }
}

/// The form of the answer, and the generation that the path names.
#[derive(Debug)]
pub struct Spoken {
    is_openai: bool,
    id: Option<GenerationId>,
}

impl Spoken {
    fn at(&self) -> Result<Location, ApiError> {
        let id = self.id.ok_or(ApiError::NotFound("generation"))?;
        Ok(Location { kind: WorkKind::Film, id })
    }
}

impl FromRequestParts<AppState> for Spoken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let is_openai = speaks(parts.uri.path(), &parts.headers);
        let id = segment(parts, state, "id").await;
        let id = id.and_then(|id| id_of(&id).filter(|_| is_openai).or_else(|| id.parse().ok()));
        Ok(Spoken { is_openai, id })
    }
}

/// `POST /v1/videos`: creates a generation of films. A request with one of OpenAI's fields, `seconds` or
/// `input_reference`, gets an answer in OpenAI's form, too.
pub async fn create(
    State(state): State<AppState>,
    client: Client,
    (accept, prefer): (Accept, Prefer),
    key: IdempotencyKey,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    if !speaks(&client.path, &headers) && !request::is_openai(&fields) {
        request::drop_absent(&mut fields);
        let Client { caller, base, .. } = client;
        return create::create(State(state), caller, Kind(WorkKind::Film), (accept, prefer), key, base, fields).await;
    }
    let names = request::names_of(&fields);
    Ok(in_form(accepted(&state, &client, fields).await.map_err(names)))
}

async fn accepted(state: &AppState, client: &Client, fields: Fields) -> Result<Response, ApiError> {
    let (mut fields, tried) = tried(client, fields, WorkKind::Film).await;
    let models: Vec<_> = state.service.models().into_iter().filter_map(|model| model.card).collect();
    request::read(&mut fields, &models, state.service.default_model(), &state.limits);
    let joined = match tried.filter(|_| client.is_retry) {
        Some(request) => join(state, client, request).await?,
        None => None,
    };
    let (view, replayed, mut presence) = match joined {
        Some((view, presence)) => (view, true, presence),
        None => {
            let order = CreateRequest {
                caller: client.caller.clone(),
                kind: WorkKind::Film,
                fields,
                repeatable: client.key.clone(),
                format: None,
            };
            state.accept_of(order, Waits::ForObject, tried).await?
        }
    };
    presence.keep();
    let uncached = [(header::CACHE_CONTROL, "no-store")];
    Ok(marked((uncached, Json(Video::of(&view))).into_response(), replayed))
}

/// Puts an error into OpenAI's form, even if the head of the request asks for the native form.
fn in_form(answer: Result<Response, ApiError>) -> Response {
    answer.unwrap_or_else(|error| {
        let face: &'static dyn Face = &OpenAi;
        let mut response = error.into_response();
        response.extensions_mut().insert(face);
        response
    })
}

/// `GET /v1/videos/{id}`.
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    base: Base,
    spoken: Spoken,
    prefer: Prefer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let at = spoken.at()?;
    if !spoken.is_openai {
        return images::get(State(state), caller, base, Id(at), prefer, headers).await;
    }
    let view = state.service.get(caller.access().of_kind(at.kind), at.id).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(Video::of(&view))).into_response())
}

/// `GET /v1/videos`.
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    base: Base,
    spoken: Spoken,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    if !spoken.is_openai {
        return images::list(State(state), caller, base, Kind(WorkKind::Film), RawQuery(query)).await;
    }
    let mut fields = urlencoded::query(query.as_deref())?;
    if fields.text("order", 16).is_some_and(|order| order != "desc") {
        fields.error("order", "unsupported_parameter", "must be desc: the newest films come first");
    }
    if let Some(after) = fields.text("after", 64) {
        fields.put_back("after", id_of(&after).map_or(after, |id| id.to_string()).into());
    }
    let (tenant, kind) = (Some(caller.tenant.to_string()), Some(WorkKind::Film));
    let query = ListQuery { tenant, kind, ..ListQuery::read(&mut fields) };
    let errors = fields.finish();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Invalid { errors }));
    }
    let page = state.service.list(&query).await?;
    let films: Vec<Video> = page.views.iter().map(Video::of).collect();
    let ids: Vec<String> = films.iter().map(|film| film.id.clone()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(Page::of(films, &ids, page.has_more))).into_response())
}

/// `DELETE /v1/videos/{id}`.
pub async fn delete(State(state): State<AppState>, caller: Caller, spoken: Spoken) -> Result<Response, ApiError> {
    let at = spoken.at()?;
    if !spoken.is_openai {
        return images::delete(State(state.service), caller, Id(at)).await;
    }
    state.service.delete(caller.access().of_kind(at.kind), at.id).await?;
    Ok(Json(json!({"id": object::id(at.id), "object": "video.deleted", "deleted": true})).into_response())
}

/// `GET /v1/videos/{id}/content`: the file of the first film.
pub async fn content(
    State(state): State<AppState>,
    caller: Result<Caller, ApiError>,
    spoken: Spoken,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    let at = spoken.at()?;
    let mut fields = urlencoded::query(query.as_deref())?;
    if fields.text("variant", 32).is_some_and(|variant| variant != "video") {
        return Err(invalid("/variant", "unsupported_parameter", "variant must be video: there are no other files"));
    }
    let first = Content { index: 0, extension: None };
    content::content(State(state), caller, Id(at), first, RawQuery(None), headers, extensions).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_the_path_and_the_sdk_tell_the_form() {
        let (none, mut sdk) = (HeaderMap::new(), HeaderMap::new());
        sdk.insert(SDK, "python".parse().expect("a header value"));
        for (path, plain, of_sdk) in [
            ("/v1/videos", false, true),
            ("/v1/videos/video_01m8j3qkkzeh0trk3gffssxmdg", true, true),
            ("/v1/videos/img_01m8j3qkkzeh0trk3gffssxmdg", false, true),
            ("/v1/videos/img_01m8j3qkkzeh0trk3gffssxmdg/content", true, true),
            ("/v1/videos/img_01m8j3qkkzeh0trk3gffssxmdg/content/0", false, true),
            ("/v1/videosx", false, false),
            ("/v1/images", false, false),
        ] {
            assert_eq!((speaks(path, &none), speaks(path, &sdk)), (plain, of_sdk), "{path}");
        }
    }
}
