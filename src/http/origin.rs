//! The user's browser as the way in: which host names are this listener's, and whose pages may change something.
//!
//! A browser sends what any page of the internet asks it to send, to this machine and its neighbors too. Two things give such a
//! request away. `Host`: a page that has its own name lead to this server (DNS rebinding) is of the server's origin to the
//! browser, but the name is not the server's. `Sec-Fetch-Site` and `Origin`: browsers say where a request comes from, and no
//! page can change that. Programs that are no browsers send neither header and are not concerned.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{error::ApiError, host::HostPort};
use crate::config::{HostPattern, Http, Operator};

/// Probes come by any name: the kubelet uses addresses, load balancers what they like.
const PROBES: [&str; 6] = ["/livez", "/readyz", "/startupz", "/metrics", "/health", "/healthz"];

/// What a listener takes for its own.
#[derive(Clone, Debug)]
pub struct Origins {
    allowed: Arc<[HostPattern]>,
    /// The setting of the names.
    setting: &'static str,
    /// The operator's listener: what changes something must be JSON, which no page can send without asking first.
    json_only: bool,
}

impl Origins {
    /// Bound to loopback, the public listener is for those on this machine. Bound to more, it has names that it cannot know:
    /// without a list of them every name is taken.
    pub fn public(http: &Http) -> Origins {
        let every = || "*".parse().into_iter().collect();
        let is_open = http.allowed_hosts.is_empty() && !http.bind.ip().is_loopback();
        let allowed = if is_open { every() } else { http.allowed_hosts.clone().into() };
        Origins { allowed, setting: "http.allowed_hosts", json_only: false }
    }

    pub fn operator(operator: &Operator) -> Origins {
        Origins { allowed: operator.allowed_hosts.clone().into(), setting: "operator.allowed_hosts", json_only: true }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let names = names(request.uri(), request.headers());
        if !PROBES.contains(&request.uri().path()) {
            names.iter().try_for_each(|name| self.check_host(name))?;
        }
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        if !self.is_ours(request.headers(), &names) {
            let origin = text(request.headers(), header::ORIGIN.as_str()).unwrap_or("another site");
            return Err(ApiError::ForeignOrigin { origin: shown(origin) });
        }
        if self.json_only && request.uri().path().starts_with("/admin/") && !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType(
                "the operator's routes take application/json only; add the header Content-Type: application/json, also \
                 where there is no body"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn check_host(&self, name: &str) -> Result<(), ApiError> {
        match name.parse::<HostPort>() {
            Ok(host) if self.serves(&host) => Ok(()),
            Ok(_) => Err(ApiError::HostNotAllowed { host: shown(name), setting: self.setting }),
            Err(_) => {
                let detail =
                    format!("must be HOST or HOST:PORT, such as localhost:8080 or [::1]:8080, not {}", shown(name));
                Err(ApiError::BadHeader { name: "Host", detail })
            }
        }
    }

    /// Whether a name in `Host` is this listener's. A page of the internet has a name with a dot, which it can have lead to any
    /// address; it can have neither an address for its name, nor `localhost` and what is below it (RFC 6761).
    fn serves(&self, HostPort { host, is_address, .. }: &HostPort) -> bool {
        let is_near = !host.contains('.') || host.ends_with(".localhost");
        *is_address || is_near || self.allowed.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether a request with these headers comes from a page of this server, or from no page at all. The one place that
    /// decides it.
    fn is_ours(&self, headers: &HeaderMap, names: &[&str]) -> bool {
        // A browser sends each once. Of several, all must speak for this server.
        let sites = headers.get_all("sec-fetch-site");
        if sites.iter().next().is_some() {
            return sites.iter().all(|site| site == "same-origin" || site == "none");
        }
        let is_own = |origin: &str| self.is_own_page(origin, headers, names);
        headers.get_all(header::ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(is_own))
    }

    /// For browsers that do not send `Sec-Fetch-Site`, as to addresses without TLS. A proxy may have put its own `Host` in
    /// place of the one that the page came by, and names that in `X-Forwarded-Host`, which no foreign page can send.
    fn is_own_page(&self, origin: &str, headers: &HeaderMap, names: &[&str]) -> bool {
        let Some((scheme, own)) = origin.split_once("://") else { return false };
        let Ok(own) = own.parse::<HostPort>() else { return false };
        let port = own.port.or(match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        let forwarded = headers.get_all("x-forwarded-host").iter().filter_map(|value| value.to_str().ok());
        let forwarded = forwarded.flat_map(|value| value.split(',')).map(str::trim);
        let is_same = |name: &str| {
            let Ok(name) = name.parse::<HostPort>() else { return false };
            // A proxy that says no port has left it out.
            name.host == own.host && name.port.is_none_or(|of_name| Some(of_name) == port)
        };
        let is_listed = self.allowed.iter().any(|pattern| !pattern.is_every() && pattern.matches(&own.host));
        is_listed || names.iter().copied().chain(forwarded).any(is_same)
    }
}

/// The innermost layer.
pub async fn check(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    match origins.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// All that the request gives as the name of its server.
fn names<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Vec<&'r str> {
    let hosts = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or("?"));
    let own = uri.authority().map(Authority::as_str);
    own.into_iter().chain(hosts).filter(|name| !name.is_empty()).collect()
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// As much of a stranger's text as an error repeats.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn origins(flags: &[(&str, &str)]) -> Origins {
        let environment = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Origins::public(&Config::load(&Sources { environment, ..Sources::default() }).unwrap().http)
    }

    fn serves(origins: &Origins, name: &str) -> bool {
        origins.check_host(name).is_ok()
    }

    #[test]
    fn a_listener_on_loopback_has_the_names_of_this_machine_and_those_of_its_list() {
        let (default, listed) = (origins(&[]), origins(&[("LATENTD_HTTP__ALLOWED_HOSTS", "images.example.com,*.lan")]));
        for name in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "page.localhost:1",
            "127.0.0.1:8080",
            "10.0.0.7",
            "[::1]:80",
            "box:8080",
        ] {
            assert!(serves(&default, name) && serves(&listed, name), "{name}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "evil.localhost.example",
            "",
            "a b",
            "?",
        ] {
            assert!(!serves(&default, name) && !serves(&listed, name), "{name}");
        }
        for name in ["images.example.com", "Images.Example.com.:443", "box.lan:8080"] {
            assert!(!serves(&default, name) && serves(&listed, name), "{name}");
        }
    }

    #[test]
    fn a_listener_for_others_has_every_name_unless_they_are_listed() {
        let open = ("LATENTD_HTTP__BIND", "0.0.0.0:8080");
        assert!(serves(&origins(&[open]), "latentd.default.svc"));
        assert!(!serves(&origins(&[open]), "evil.example@latentd.default.svc"), "a name it is all the same");
        assert!(!serves(&origins(&[open, ("LATENTD_HTTP__ALLOWED_HOSTS", "localhost")]), "latentd.default.svc"));
    }

    fn is_ours(origins: &Origins, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        origins.is_ours(&headers, &names(&Uri::from_static("/v1/images"), &headers))
    }

    #[test]
    fn pages_of_this_server_and_programs_may_change_something_and_others_may_not() {
        let origins = origins(&[("LATENTD_HTTP__ALLOWED_HOSTS", "images.example.com")]);
        let local = ("host", "127.0.0.1:8080");
        for headers in [
            &[local][..],
            &[local, ("sec-fetch-site", "same-origin"), ("origin", "https://images.example.com")],
            &[local, ("sec-fetch-site", "none")],
            &[local, ("origin", "http://127.0.0.1:8080")],
            &[("host", "192.168.0.7"), ("origin", "http://192.168.0.7")],
            &[("host", "192.168.0.7"), ("origin", "http://192.168.0.7:9000")],
            &[("host", "a.example:443"), ("origin", "https://a.example")],
            &[local, ("origin", "https://images.example.com")],
            &[local, ("origin", "https://a.example:8443"), ("x-forwarded-host", "a.example:8443, 127.0.0.1")],
        ] {
            assert!(is_ours(&origins, headers), "{headers:?}");
        }
        for headers in [
            &[local, ("sec-fetch-site", "cross-site")][..],
            &[local, ("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:3000")],
            &[local, ("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:8080")],
            &[local, ("origin", "https://evil.example")],
            &[local, ("origin", "http://127.0.0.1:3000")],
            &[local, ("origin", "null")],
            &[local, ("origin", "")],
            &[local, ("origin", "file://")],
            &[local, ("origin", "http://evil.example@127.0.0.1:8080")],
            &[local, ("origin", "http://127.0.0.1:8080/")],
            &[local, ("origin", "http://127.0.0.1:8080"), ("origin", "https://evil.example")],
            &[local, ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:8080"), ("origin", "http://localhost.evil.example:8080")],
        ] {
            assert!(!is_ours(&origins, headers), "{headers:?}");
        }
    }
}
