//! Generations after their creation: read, list, cancel, erase.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{
    AppState,
    error::{ApiError, location, success},
    etag, generation,
    negotiate::Prefer,
    path::Id,
    urlencoded,
};
use crate::{
    generation::{Fields, GenerationId, Invalid},
    ledger::ListQuery,
    service::{Service, View},
};

pub async fn get(
    State(state): State<AppState>,
    Id(id): Id,
    prefer: Prefer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let view = match prefer.wait {
        Some(wait) => state.wait(id, wait).await?,
        None => state.service.get(id).await?,
    };
    let tag = generation::etag(&view, &state.signer);
    let applied = prefer.wait.and_then(|_| prefer.applied());
    let applied =
        axum::response::AppendHeaders(applied.map(|value| (HeaderName::from_static("preference-applied"), value)));
    let head = (applied, [(header::CACHE_CONTROL, "no-store"), (header::VARY, "Accept, Prefer"), (header::ETAG, &tag)]);
    if etag::matches(&headers, &tag) {
        return Ok((success::NOT_MODIFIED, head).into_response());
    }
    Ok((head, object(&state, &view)).into_response())
}

#[derive(Debug, Serialize)]
struct List {
    object: &'static str,
    data: Vec<generation::Object>,
    first_id: Option<GenerationId>,
    last_id: Option<GenerationId>,
    has_more: bool,
}

pub async fn list(State(state): State<AppState>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = list_query(query.unwrap_or_default().as_bytes())?;
    let page = state.service.list(&query).await?;
    let (first_id, last_id) = (page.records.first().map(|r| r.id), page.records.last().map(|r| r.id));
    let pace = state.service.pace();
    let views = page.records.into_iter().map(|record| View { record, progress: None, position: None });
    let data = views.map(|view| generation::object(&view, pace, &state.signer)).collect();
    let next =
        last_id.filter(|_| page.has_more && query.before.is_none()).map(|last| (header::LINK, next(&query, last)));
    let list = List { object: "list", data, first_id, last_id, has_more: page.has_more };
    Ok((axum::response::AppendHeaders(next), [(header::CACHE_CONTROL, "no-store")], Json(list)).into_response())
}

fn next(query: &ListQuery, last: GenerationId) -> String {
    let mut url = format!("/v1/images?limit={}&after={last}", query.limit);
    for (name, value) in [("status", &query.status), ("model", &query.model)] {
        if let Some(value) = value {
            // A model's name may hold what a URL may not; such a page goes on without a link's help.
            url += &format!("&{name}={}", value.replace(['&', '>', '<', '#', '%', '"', ' '], ""));
        }
    }
    format!("<{url}>; rel=\"next\"")
}

/// # Errors
/// All parameters that are wrong or unknown, each under its name.
fn list_query(query: &[u8]) -> Result<ListQuery, ApiError> {
    let mut fields = Fields::from_form(urlencoded::pairs(query)?);
    let limit = fields.integer("limit", 1, 100).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(20);
    let status = fields.choice("status", &["queued", "running", "succeeded", "failed", "canceled", "expired"]);
    let (after, before) = (cursor(&mut fields, "after"), cursor(&mut fields, "before"));
    if after.is_some() && before.is_some() {
        fields.error("before", "conflict", "excludes after");
    }
    let model = fields.text("model", 128);
    match fields.finish() {
        errors if errors.is_empty() => {
            Ok(ListQuery { limit, after, before, status: status.map(Word::text), model, ..ListQuery::default() })
        }
        errors => Err(ApiError::Invalid(Invalid { errors })),
    }
}

/// The statuses by which a list can be narrowed.
#[derive(Clone, Copy, Debug, serde::Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Queued,
    Running,
    Succeeded,
    Failed,
    Canceled,
    Expired,
}

impl Word {
    fn text(self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }
}

fn cursor(fields: &mut Fields, name: &str) -> Option<GenerationId> {
    let text = fields.text(name, 64)?;
    let id = text.parse().ok();
    if id.is_none() {
        fields.error(name, "invalid_value", "must be the id of a generation");
    }
    id
}

/// Answers 202 while the run has yet to obey, 200 where the generation has ended.
pub async fn cancel(State(state): State<AppState>, Id(id): Id) -> Result<Response, ApiError> {
    let view = state.service.cancel(id).await?;
    let answer = ([(header::LOCATION, location(&id))], [(header::CACHE_CONTROL, "no-store")], object(&state, &view));
    match view.record.status.is_terminal() {
        true => Ok(answer.into_response()),
        false => Ok((success::ACCEPTED, answer).into_response()),
    }
}

pub async fn delete(State(service): State<Service>, Id(id): Id) -> Result<Response, ApiError> {
    service.delete(id).await?;
    Ok(success::NO_CONTENT.into_response())
}

fn object(state: &AppState, view: &View) -> Json<generation::Object> {
    Json(generation::object(view, state.service.pace(), &state.signer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> Vec<String> {
        match list_query(query.as_bytes()) {
            Err(ApiError::Invalid(invalid)) => invalid.errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{query} became {other:?}"),
        }
    }

    #[test]
    fn a_list_is_narrowed_by_its_query() {
        let id = GenerationId::new();
        let query = list_query(format!("limit=5&after={id}&status=queued&model=emoji").as_bytes()).unwrap();
        assert_eq!((query.limit, query.after, query.before), (5, Some(id), None));
        assert_eq!((query.status.as_deref(), query.model.as_deref()), (Some("queued"), Some("emoji")));
        assert_eq!(
            next(&query, id),
            format!("</v1/images?limit=5&after={id}&status=queued&model=emoji>; rel=\"next\"")
        );
        assert_eq!(list_query(b"").unwrap().limit, 20);
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let mut named = refused("limit=0&status=done&after=x&colour=red");
        named.sort();
        assert_eq!(named, ["/after", "/colour", "/limit", "/status"]);
        assert_eq!(refused("limit=101"), ["/limit"]);
        let id = GenerationId::new();
        assert_eq!(refused(&format!("after={id}&before={id}")), ["/before"]);
    }
}
