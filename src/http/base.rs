//! The address of this server in the links of answers: `http.public_url`, otherwise what the headers of the request
//! state.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts},
    middleware::Next,
    response::Response,
};

use super::host::HostPort;
use crate::config::Http;

/// The address under which the client of a request knows this server.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// The beginning of links: an address such as `https://example.com/ai`. Empty if `http.public_url` is not set and
    /// no trusted proxy states both scheme and host; links are then paths, which clients resolve themselves.
    links: Arc<str>,
    /// The beginning of absolute URLs, for clients that do not resolve paths. If `http.public_url` is not set, scheme
    /// and host are the ones that a trusted proxy states. If the proxy states no scheme, the scheme is `http`. If the
    /// proxy states no host, the host comes from the header `Host`. Empty if the request has no valid host name, or if
    /// the request came to the operator's listener and `http.public_url` is not set.
    server: Arc<str>,
}

impl Base {
    /// The link to a path of this server.
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.links)
    }

    /// The absolute URL of a path of this server, for clients that do not resolve links.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }
}

/// Reads the address that [`provide`] has found. In a router without [`provide`], links are paths.
impl<S: Send + Sync> FromRequestParts<S> for Base {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Base, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Finds the address for each request.
#[derive(Clone, Debug)]
pub struct Bases {
    /// `http.public_url` without a slash at the end.
    public_url: Arc<str>,
    trusts_forwarded: bool,
    /// Whether this is the public listener. Links lead to the public listener, so they never contain the address of a
    /// request to the operator's listener.
    is_public: bool,
}

impl Bases {
    pub fn new(http: &Http, is_public: bool) -> Bases {
        let public_url = http.public_url.trim_end_matches('/').into();
        Bases { public_url, trusts_forwarded: http.trust_forwarded, is_public }
    }

    fn of(&self, headers: &HeaderMap, uri: &Uri) -> Base {
        if !self.public_url.is_empty() || !self.is_public {
            return Base { links: self.public_url.clone(), server: self.public_url.clone() };
        }
        let forwarded = if self.trusts_forwarded { Forwarded::of(headers) } else { Forwarded::default() };
        let authority = uri.authority().map(|authority| authority.as_str());
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let names = [forwarded.host.as_deref(), host, authority];
        let Some(name) = names.into_iter().flatten().find(|name| name.parse::<HostPort>().is_ok()) else {
            return Base::default();
        };
        let (scheme, prefix) = (forwarded.scheme.unwrap_or("http"), forwarded.prefix.as_deref().unwrap_or_default());
        let server: Arc<str> = format!("{scheme}://{name}{prefix}").into();
        Base { links: if forwarded.is_whole { server.clone() } else { Arc::default() }, server }
    }
}

/// Middleware: finds the address of the request, and completes the links in the headers of the answer.
pub async fn provide(State(bases): State<Bases>, mut request: Request, next: Next) -> Response {
    let base = bases.of(request.headers(), request.uri());
    request.extensions_mut().insert(base.clone());
    let mut response = next.run(request).await;
    if !base.links.is_empty() {
        let headers = response.headers_mut();
        complete(headers, header::LOCATION, "/", &base);
        complete(headers, header::CONTENT_LOCATION, "/", &base);
        complete(headers, header::LINK, "</", &base);
    }
    response
}

/// If the value of the header begins with `start`, puts the address of the server before the path.
fn complete(headers: &mut HeaderMap, name: HeaderName, start: &str, base: &Base) {
    let value = headers.get(&name).and_then(|value| value.to_str().ok());
    let Some(path) = value.and_then(|value| value.strip_prefix(start)) else { return };
    let (before, slash) = start.split_at(start.len() - 1);
    if let Ok(whole) = HeaderValue::try_from(format!("{before}{}{slash}{path}", base.links)) {
        headers.insert(name, whole);
    }
}

/// What the proxy closest to the client states about the request. Scheme and host come from `Forwarded` (RFC 7239). A
/// scheme that is missing there is taken from `X-Forwarded-Proto`, and a missing host from `X-Forwarded-Host`. The
/// prefix always comes from `X-Forwarded-Prefix`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forwarded {
    /// Whether the headers state both scheme and host. Otherwise links stay paths, which are right in any case.
    is_whole: bool,
    scheme: Option<&'static str>,
    host: Option<String>,
    prefix: Option<String>,
}

impl Forwarded {
    fn of(headers: &HeaderMap) -> Forwarded {
        let first = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok())?;
            value.split(',').next().map(str::trim).filter(|value| !value.is_empty())
        };
        let mut found = Forwarded::default();
        for pair in first("forwarded").unwrap_or_default().split(';') {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "proto" => found.scheme = scheme(value),
                "host" => found.host = Some(value.to_owned()),
                _ => {}
            }
        }
        found.scheme = found.scheme.or_else(|| scheme(first("x-forwarded-proto")?));
        found.host = found.host.or_else(|| first("x-forwarded-host").map(str::to_owned));
        found.host = found.host.filter(|host| host.parse::<HostPort>().is_ok());
        found.prefix = first("x-forwarded-prefix").map(|prefix| prefix.trim_end_matches('/')).and_then(path);
        found.is_whole = found.scheme.is_some() && found.host.is_some();
        found
    }
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme))
}

/// The path below which a proxy serves this server.
fn path(text: &str) -> Option<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.' | '_' | '~' | '%');
    let is_valid = text.starts_with('/') && !text.starts_with("//") && text.chars().all(is_path);
    is_valid.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn bases(flags: &[(&str, &str)], is_public: bool) -> Bases {
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Bases::new(&Config::load(&Sources { flags, ..Sources::default() }).unwrap().http, is_public)
    }

    /// The links and the server of a request.
    fn of(bases: &Bases, lines: &[(&'static str, &str)], uri: &str) -> (String, String) {
        let lines = lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let base = bases.of(&HeaderMap::from_iter(lines), &uri.parse().unwrap());
        (base.link("/v1"), base.url("/v1"))
    }

    #[test]
    fn the_server_has_the_name_that_the_client_used() {
        let host = ("host", "inner:8080");
        let default = bases(&[], true);
        for (lines, links, server) in [
            (&[host][..], "", "http://inner:8080"),
            (&[("host", "a b"), ("x-forwarded-proto", "ftp")], "", ""),
            (&[host, ("x-forwarded-proto", "https")], "", "https://inner:8080"),
            (&[host, ("x-forwarded-host", "a.example, inner")], "", "http://a.example"),
            (
                &[
                    host,
                    ("x-forwarded-host", "a.example"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-prefix", "/ai/"),
                ],
                "https://a.example/ai",
                "https://a.example/ai",
            ),
            (
                &[
                    host,
                    ("forwarded", "for=\"[::1]\";Proto=https;Host=\"b.example:8443\", for=x"),
                    ("x-forwarded-host", "a"),
                ],
                "https://b.example:8443",
                "https://b.example:8443",
            ),
            (&[host, ("forwarded", "for=192.0.2.1")], "", "http://inner:8080"),
            (&[host, ("x-forwarded-host", "a b"), ("x-forwarded-prefix", "//evil")], "", "http://inner:8080"),
            (&[host, ("x-forwarded-prefix", "/a\"><script>")], "", "http://inner:8080"),
        ] {
            let expected = (format!("{links}/v1"), format!("{server}/v1"));
            assert_eq!(of(&default, lines, "/v1"), expected, "{lines:?}");
        }
        assert_eq!(of(&default, &[], "http://[::1]:80/v1").1, "http://[::1]:80/v1");
    }

    #[test]
    fn settings_come_before_headers() {
        let proxy = [("host", "inner"), ("x-forwarded-host", "a.example"), ("x-forwarded-proto", "https")];
        let named = [("http.public_url", "https://images.example.com/ai/")];
        for is_public in [true, false] {
            let (links, server) = of(&bases(&named, is_public), &proxy, "/v1");
            assert_eq!((&*links, &*server), ("https://images.example.com/ai/v1", "https://images.example.com/ai/v1"));
        }
        let untrusting = bases(&[("http.trust_forwarded", "false")], true);
        assert_eq!(of(&untrusting, &proxy, "/v1"), ("/v1".to_owned(), "http://inner/v1".to_owned()));
        assert_eq!(of(&bases(&[], false), &proxy, "/v1"), ("/v1".to_owned(), "/v1".to_owned()));
    }

    #[test]
    fn links_in_headers_are_completed() {
        let base = Base { links: "https://a.example".into(), server: "https://a.example".into() };
        let completed = |name: HeaderName, start: &str, value: &str| {
            let mut headers = HeaderMap::from_iter([(name.clone(), value.parse().unwrap())]);
            complete(&mut headers, name.clone(), start, &base);
            headers[name].to_str().unwrap().to_owned()
        };
        assert_eq!(completed(header::LOCATION, "/", "/v1/images/x"), "https://a.example/v1/images/x");
        assert_eq!(completed(header::LOCATION, "/", "https://b.example/"), "https://b.example/");
        assert_eq!(
            completed(header::LINK, "</", "</v1?a=1>; rel=\"next\""),
            "<https://a.example/v1?a=1>; rel=\"next\""
        );
    }
}
