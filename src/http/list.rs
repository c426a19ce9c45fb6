//! Pages of generations.

use axum::{
    http::header,
    response::{AppendHeaders, IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{AppState, error::ApiError, generation};
use crate::{
    generation::{Fields, GenerationId, Invalid, Record},
    ledger::ListQuery,
    service::View,
};

#[derive(Debug, Serialize)]
struct List<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<GenerationId>,
    last_id: Option<GenerationId>,
    has_more: bool,
}

/// The page that a query asks for, with a link to the next one under `path`; `show` says what is told of each generation.
///
/// # Errors
/// All parameters that are wrong, and what is left in `fields` as unknown.
pub async fn listed<T: Serialize>(
    state: &AppState,
    fields: Fields,
    query: &ListQuery,
    path: &str,
    show: impl Fn(generation::Object, &Record) -> T,
) -> Result<Response, ApiError> {
    let errors = fields.finish();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Invalid { errors }));
    }
    let page = state.service.list(query).await?;
    let id = |view: &View| view.record.id;
    let (first_id, last_id) = (page.views.first().map(id), page.views.last().map(id));
    let pace = state.service.pace();
    let data =
        page.views.iter().map(|view| show(generation::object(view, pace, &state.signer), &view.record)).collect();
    let next = last_id.filter(|_| page.has_more && query.before.is_none());
    let next = next.map(|last| (header::LINK, next_link(path, query, last)));
    let list = List { object: "list", data, first_id, last_id, has_more: page.has_more };
    Ok((AppendHeaders(next), [(header::CACHE_CONTROL, "no-store")], Json(list)).into_response())
}

fn next_link(path: &str, query: &ListQuery, last: GenerationId) -> String {
    let mut url = format!("{path}?limit={}&after={last}", query.limit);
    for (name, value) in [("status", &query.status), ("model", &query.model)] {
        if let Some(value) = value {
            // A model's name may hold what a URL may not; such a page goes on without a link's help.
            url += &format!("&{name}={}", value.replace(['&', '>', '<', '#', '%', '"', ' '], ""));
        }
    }
    if query.dead {
        url += "&dead=true";
    }
    format!("<{url}>; rel=\"next\"")
}

impl ListQuery {
    /// Reads the parameters that every list of generations takes.
    pub(super) fn read(fields: &mut Fields) -> ListQuery {
        let limit = fields.integer("limit", 1, 100).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(20);
        let status = fields.choice("status", &["queued", "running", "succeeded", "failed", "canceled", "expired"]);
        let (after, before) = (cursor(fields, "after"), cursor(fields, "before"));
        if after.is_some() && before.is_some() {
            fields.error("before", "conflict", "excludes after");
        }
        let model = fields.text("model", 128);
        ListQuery { limit, after, before, status: status.map(Word::text), model, ..ListQuery::default() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::urlencoded;

    fn read(query: &str) -> (ListQuery, Vec<String>) {
        let mut fields = Fields::from_form(urlencoded::pairs(query.as_bytes()).unwrap());
        let query = ListQuery::read(&mut fields);
        (query, fields.finish().into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn a_list_is_narrowed_by_its_query() {
        let id = GenerationId::new();
        let (query, errors) = read(&format!("limit=5&after={id}&status=queued&model=emoji"));
        assert_eq!((query.limit, query.after, query.before, errors.len()), (5, Some(id), None, 0));
        assert_eq!((query.status.as_deref(), query.model.as_deref()), (Some("queued"), Some("emoji")));
        assert_eq!(
            next_link("/v1/images", &query, id),
            format!("</v1/images?limit=5&after={id}&status=queued&model=emoji>; rel=\"next\"")
        );
        assert_eq!(read("").0.limit, 20);
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let mut named = read("limit=0&status=done&after=x&colour=red").1;
        named.sort();
        assert_eq!(named, ["/after", "/colour", "/limit", "/status"]);
        assert_eq!(read("limit=101").1, ["/limit"]);
        let id = GenerationId::new();
        assert_eq!(read(&format!("after={id}&before={id}")).1, ["/before"]);
    }
}
