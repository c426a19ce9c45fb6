//! Serves the web page and its assets, which are compiled in, and answers requests that reach no route.

use axum::{
    extract::MatchedPath,
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{
    error::{ApiError, success},
    etag,
};
use crate::generation::{GenerationId, WorkKind};

#[derive(RustEmbed)]
#[folder = "web/"]
struct Web;

/// Only the server's own scripts run, and the page connects only to the server. Pictures, films and sounds may also
/// come from the page's memory.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
    media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// `GET /`.
pub async fn index(headers: HeaderMap) -> Result<Response, ApiError> {
    let file = Web::get("index.html").ok_or(ApiError::NotFound("page"))?;
    Ok(respond("index.html", file, &headers))
}

/// `GET /docs`: the reference of the API, which reads `/openapi.json`.
pub async fn docs(headers: HeaderMap) -> Result<Response, ApiError> {
    let file = Web::get("docs.html").ok_or(ApiError::NotFound("page"))?;
    Ok(respond("docs.html", file, &headers))
}

/// Answers every path without a route: with the asset of that name, or with 404.
pub async fn asset(method: Method, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let name = uri.path().trim_start_matches('/');
    let file = Web::get(name).ok_or(ApiError::NotFound("resource"))?;
    if method != Method::GET && method != Method::HEAD {
        return Ok(([(header::ALLOW, "GET,HEAD")], ApiError::MethodNotAllowed).into_response());
    }
    Ok(respond(name, file, &headers))
}

/// Answers requests for paths of the operator's listener that have no route: with 404.
pub async fn nothing() -> ApiError {
    ApiError::NotFound("resource")
}

/// Answers a method that a path does not support; the router adds `Allow`. A last segment that cannot be an id, as in
/// `/v1/images/x`, means an unknown path.
pub async fn wrong_method(path: Option<MatchedPath>, uri: Uri) -> ApiError {
    let is_of_one = path.is_some_and(|path| {
        WorkKind::ALL.iter().any(|kind| path.as_str().strip_prefix(kind.root()).is_some_and(|rest| rest == "/{id}"))
    });
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    match is_of_one && last.parse::<GenerationId>().is_err() {
        true => ApiError::NoSuchPath,
        false => ApiError::MethodNotAllowed,
    }
}

fn respond(name: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    // The tag is weak, because a compressed answer has other bytes under the same tag.
    let tag = format!("W/\"{:032x}\"", u128::from_be_bytes(std::array::from_fn(|i| hash[i])));
    // The names of assets do not change with their contents, so browsers ask each time; most answers are 304.
    let kept = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if etag::matches(headers, &tag) {
        return (success::NOT_MODIFIED, kept).into_response();
    }
    let security = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_TYPE, content_type(name)),
    ];
    (kept, security, file.data).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_has_a_type() {
        for name in Web::iter() {
            assert_ne!(content_type(&name), "application/octet-stream", "{name}");
        }
    }

    #[tokio::test]
    async fn an_asset_is_validated_by_its_tag_and_methods_are_held() {
        let Some(name) = Web::iter().next() else {
            return;
        };
        let uri: Uri = format!("/{name}").parse().unwrap();
        let first = asset(Method::GET, uri.clone(), HeaderMap::new()).await.unwrap();
        assert_eq!(first.status().as_u16(), 200);
        let tag = first.headers()[header::ETAG].clone();
        let again = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]);
        assert_eq!(asset(Method::GET, uri.clone(), again).await.unwrap().status().as_u16(), 304);
        let posted = asset(Method::POST, uri, HeaderMap::new()).await.unwrap();
        assert_eq!((posted.status().as_u16(), posted.headers()[header::ALLOW].to_str().unwrap()), (405, "GET,HEAD"));
    }
}
