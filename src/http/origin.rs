//! Protects users' browsers: which host names belong to this listener, and which pages may change something.
//!
//! A browser sends any request that a page makes, also to the browser's own machine and its neighbors. The server
//! recognizes requests of foreign pages by their headers:
//!
//! - `Host`: a page can point its own name at this server (DNS rebinding). Then the browser treats the server as the
//!   origin of the page, but `Host` contains the name of the page, which is not a name of the server.
//! - `Sec-Fetch-Site` and `Origin`: browsers state where a request comes from, and no page can change these headers.
//!
//! Programs other than browsers, such as curl and SDKs, usually send neither `Sec-Fetch-Site` nor `Origin`; for them,
//! only the check of `Host` applies.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    cors::{Cors, Grant, preflight},
    error::ApiError,
    host::HostPort,
};
use crate::config::{HostPattern, Http, Operator};

/// Paths that may be requested under any host name: the paths of health checks and metrics. The programs that request
/// these paths use names and addresses that the server does not know.
pub(super) const PROBES: [&str; 6] = ["/livez", "/readyz", "/startupz", "/metrics", "/health", "/healthz"];

/// The host names and pages that a listener accepts as its own.
#[derive(Clone, Debug)]
pub struct Origins {
    allowed: Arc<[HostPattern]>,
    /// Name of the setting that lists the host names.
    setting: &'static str,
    /// Whether changes below `/admin/` require JSON, which other sites cannot send without a preflight.
    json_only: bool,
    /// The origins of other sites whose pages may use the listener.
    cors: Cors,
    /// Whether the names in `X-Forwarded-Host` count as names of this server.
    trusts_forwarded: bool,
}

impl Origins {
    /// For the public listener. On a loopback address it accepts local and listed names. On any other address it cannot
    /// know its names, so it accepts every name if none are listed.
    pub fn public(http: &Http) -> Origins {
        let every = || "*".parse().into_iter().collect();
        let is_open = http.allowed_hosts.is_empty() && !http.bind.ip().is_loopback();
        let allowed = if is_open { every() } else { http.allowed_hosts.clone().into() };
        Origins {
            allowed,
            setting: "http.allowed_hosts",
            json_only: false,
            cors: Cors::new(&http.cors_origins),
            trusts_forwarded: http.trust_forwarded,
        }
    }

    /// For the operator's listener, which accepts local and listed names.
    pub fn operator(operator: &Operator) -> Origins {
        let allowed = operator.allowed_hosts.clone().into();
        Origins {
            allowed,
            setting: "operator.allowed_hosts",
            json_only: true,
            cors: Cors::new(&[]),
            trusts_forwarded: true,
        }
    }

    fn check(&self, request: &Request, grant: Option<&Grant>) -> Result<(), ApiError> {
        let names = names(request.uri(), request.headers());
        if !PROBES.contains(&request.uri().path()) {
            names.iter().try_for_each(|name| self.check_host(name))?;
        }
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let is_granted = grant.is_some_and(|grant| grant.admits(request.headers()));
        if !is_granted && !self.is_ours(request.headers(), &names) {
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

    /// Whether a name in `Host` belongs to this listener. In DNS rebinding, the owner of a page points the page's
    /// domain name to another address. Such a name has a dot. An address, a name without a dot, `localhost` and names
    /// below `localhost` (RFC 6761) cannot be rebound in this way, so they are always accepted.
    fn serves(&self, HostPort { host, is_address, .. }: &HostPort) -> bool {
        let is_near = !host.contains('.') || host.ends_with(".localhost");
        *is_address || is_near || self.allowed.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether a request with these headers comes from a page of this server, or from no page at all.
    fn is_ours(&self, headers: &HeaderMap, names: &[&str]) -> bool {
        // A browser sends each header once. If there are several, all must name this server.
        let sites = headers.get_all("sec-fetch-site");
        if sites.iter().next().is_some() {
            return sites.iter().all(|site| site == "same-origin" || site == "none");
        }
        let is_own = |origin: &str| self.is_own_page(origin, headers, names);
        headers.get_all(header::ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(is_own))
    }

    /// Checks `Origin`, for browsers that do not send `Sec-Fetch-Site`, for example to addresses without TLS. A proxy
    /// may have replaced `Host` and put the original name into `X-Forwarded-Host`, which no foreign page can send.
    fn is_own_page(&self, origin: &str, headers: &HeaderMap, names: &[&str]) -> bool {
        let Some((scheme, own)) = origin.split_once("://") else { return false };
        let Ok(own) = own.parse::<HostPort>() else { return false };
        let port = own.port.or(match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        let forwarded = headers.get_all("x-forwarded-host").iter().filter(|_| self.trusts_forwarded);
        let forwarded = forwarded.filter_map(|value| value.to_str().ok());
        let forwarded = forwarded.flat_map(|value| value.split(',')).map(str::trim);
        let is_same = |name: &str| {
            let Ok(name) = name.parse::<HostPort>() else { return false };
            // A name without a port may come from a proxy that left the port out.
            name.host == own.host && name.port.is_none_or(|of_name| Some(of_name) == port)
        };
        let is_listed = self.allowed.iter().any(|pattern| !pattern.is_every() && pattern.matches(&own.host));
        is_listed || names.iter().copied().chain(forwarded).any(is_same)
    }
}

/// Middleware: answers with an error if the host name is not the server's, or if a foreign page wants to change
/// something. Otherwise the handler runs. Pages of listed origins may send requests and read the answers.
pub async fn check(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let grant = origins.cors.grant(request.headers());
    let mut response = match origins.check(&request, grant.as_ref()) {
        Err(error) => error.into_response(),
        Ok(()) => match grant.as_ref().and_then(|_| preflight(&request)) {
            Some(response) => response,
            None => next.run(request).await,
        },
    };
    origins.cors.mark(grant.as_ref(), &mut response);
    response
}

/// All names that the request gives for its server.
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

/// The part of a client's text that an error repeats.
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
        assert!(!serves(&origins(&[open]), "evil.example@latentd.default.svc"), "the name is still invalid");
        assert!(!serves(&origins(&[open, ("LATENTD_HTTP__ALLOWED_HOSTS", "localhost")]), "latentd.default.svc"));
    }

    fn is_ours(origins: &Origins, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        origins.is_ours(&headers, &names(&Uri::from_static("/v1/images"), &headers))
    }

    #[test]
    fn only_pages_of_this_server_and_programs_may_make_changes() {
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
