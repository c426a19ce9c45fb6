//! The JSON of lists: pages of generations, keys, endpoints and deliveries, and lists without pages.

use axum::{
    http::header,
    response::{AppendHeaders, IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{AppState, base::Base, caller::Caller, error::ApiError, generation, url};
use crate::{
    generation::{Fields, GenerationId, Invalid, Record},
    ledger::ListQuery,
};

/// A list without pages.
#[derive(Debug, Serialize)]
pub struct Collection<T> {
    object: &'static str,
    data: Vec<T>,
}

impl<T> Collection<T> {
    pub fn of(data: impl Iterator<Item = T>) -> Json<Collection<T>> {
        Json(Collection { object: "list", data: data.collect() })
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct Page<I, T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<I>,
    last_id: Option<I>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Links>,
}

/// The links that concern all generations of the list.
#[derive(Debug, Serialize)]
pub struct Links {
    events: String,
    /// When the signed URL of the events expires; `None` if it is not signed.
    events_expires_at: Option<String>,
}

impl Links {
    /// The links of the list of the caller's generations.
    pub fn of(state: &AppState, base: &Base, caller: &Caller) -> Links {
        let (events, expiry) = state.signer.sign_for(url::TENANT_EVENTS, caller);
        Links { events: base.link(&events), events_expires_at: generation::time_of(expiry) }
    }
}

impl<I: Copy, T> Page<I, T> {
    /// One page of a list. `ids` has the id of each item of `data`, in the same order.
    pub fn of(data: Vec<T>, ids: &[I], has_more: bool) -> Page<I, T> {
        let (first_id, last_id) = (ids.first().copied(), ids.last().copied());
        Page { object: "list", data, first_id, last_id, has_more, links: None }
    }
}

/// Answers with the page that the query asks for and with `links`, and links to the next page under `path`. The link to
/// the next page repeats `own`, the parameters that only this list has. `show` converts each generation.
///
/// # Errors
/// All invalid parameters. Parameters left in `fields` are unknown.
pub async fn listed<T: Serialize, const N: usize>(
    (state, base): (&AppState, &Base),
    fields: Fields,
    query: &ListQuery,
    (path, links): (&str, Option<Links>),
    own: [(&'static str, Option<String>); N],
    show: impl Fn(generation::Object, &Record) -> T,
) -> Result<Response, ApiError> {
    let errors = fields.finish();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Invalid { errors }));
    }
    let page = state.service.list(query).await?;
    let ids: Vec<GenerationId> = page.views.iter().map(|view| view.record.id).collect();
    let pace = state.service.pace();
    let data =
        page.views.iter().map(|view| show(generation::object(view, pace, &state.signer, base), &view.record)).collect();
    let next = ids.last().filter(|_| page.has_more && query.before.is_none()).map(|last| {
        let (limit, after) = (Some(query.limit.to_string()), Some(last.to_string()));
        let (status, model) = (query.status.clone(), query.model.clone());
        let starred = query.starred.map(|starred| starred.to_string());
        let shared = [("limit", limit), ("after", after), ("status", status), ("model", model), ("starred", starred)];
        (header::LINK, url::next_page(path, shared.into_iter().chain(own)))
    });
    let list = Page { links, ..Page::of(data, &ids, page.has_more) };
    Ok((AppendHeaders(next), [(header::CACHE_CONTROL, "no-store")], Json(list)).into_response())
}

impl ListQuery {
    /// Reads the parameters that every list of generations has.
    pub(super) fn read(fields: &mut Fields) -> ListQuery {
        let limit = fields.integer("limit", 1, 100).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(20);
        let status = fields.choice("status", &["queued", "running", "succeeded", "failed", "canceled", "expired"]);
        let (after, before) = (cursor(fields, "after"), cursor(fields, "before"));
        if after.is_some() && before.is_some() {
            fields.error("before", "conflict", "excludes after");
        }
        let (model, starred) = (fields.text("model", 128), fields.flag("starred"));
        let status = status.map(StatusFilter::text);
        ListQuery { limit, after, before, status, model, starred, ..ListQuery::default() }
    }
}

/// The statuses that can filter a list.
#[derive(Clone, Copy, Debug, serde::Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum StatusFilter {
    Queued,
    Running,
    Succeeded,
    Failed,
    Canceled,
    Expired,
}

impl StatusFilter {
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
        let mut fields = urlencoded::query(Some(query)).unwrap();
        let query = ListQuery::read(&mut fields);
        (query, fields.finish().into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn a_list_is_narrowed_by_its_query() {
        let id = GenerationId::new();
        let (query, errors) = read(&format!("limit=5&after={id}&status=queued&model=emoji&starred=true"));
        assert_eq!((query.limit, query.after, query.before, errors.len()), (5, Some(id), None, 0));
        assert_eq!((query.status.as_deref(), query.model.as_deref()), (Some("queued"), Some("emoji")));
        assert_eq!(query.starred, Some(true));
        assert_eq!((read("").0.limit, read("").0.starred), (20, None));
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let mut named = read("limit=0&status=done&after=x&color=red&starred=yes").1;
        named.sort();
        assert_eq!(named, ["/after", "/color", "/limit", "/starred", "/status"]);
        for limit in ["limit=101", "limit=null", "limit="] {
            assert_eq!(read(limit).1, ["/limit"]);
        }
        let id = GenerationId::new();
        assert_eq!(read(&format!("after={id}&before={id}")).1, ["/before"]);
    }
}
