//! Cross-origin resource sharing (WHATWG Fetch, section 3.2): lets pages of the origins in `http.cors_origins` use the
//! API and read its answers.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};

use super::error::success;
use crate::config::Origin;

/// The headers that a page may read besides those that browsers always show.
const EXPOSED: &str = "Content-Disposition, Content-Location, Content-Range, ETag, Idempotency-Replayed, \
    Latentd-Generation-Id, Latentd-Seed, Latentd-Version, Latentd-Warnings, Link, Location, Preference-Applied, \
    RateLimit, RateLimit-Policy, Retry-After, Server-Timing, Traceresponse, X-Request-Id, X-Should-Retry";

/// The methods of all routes.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";

/// Seconds that a browser may keep the answer to a preflight; the maximum that Chromium accepts.
const PREFLIGHT_AGE: &str = "7200";

/// The origins whose pages may use a listener.
#[derive(Clone, Debug)]
pub struct Cors(Arc<[Origin]>);

/// How a page of another origin may use the listener.
#[derive(Clone, Debug)]
pub enum Grant {
    /// The origin is listed: its pages may also use credentials that the browser has stored.
    Listed(HeaderValue),
    /// The list contains `*`: pages may send a key themselves, but not use stored credentials.
    Every,
}

impl Cors {
    pub fn new(origins: &[Origin]) -> Cors {
        Cors(origins.into())
    }

    /// The grant of a request; `None` if the request has no header `Origin` or several, or if the list does not admit
    /// the origin.
    pub fn grant(&self, headers: &HeaderMap) -> Option<Grant> {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let origin = sent.next()?;
        // A browser sends the header once.
        if sent.next().is_some() {
            return None;
        }
        let is_listed = origin.to_str().is_ok_and(|sent| self.0.iter().any(|listed| listed.is(sent)));
        match is_listed {
            true => Some(Grant::Listed(origin.clone())),
            false => self.has_every().then_some(Grant::Every),
        }
    }

    /// Adds the headers that let the page read the answer.
    pub fn mark(&self, grant: Option<&Grant>, response: &mut Response) {
        if self.0.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        // A cache must not give the answer for one origin to another origin.
        if self.0.iter().any(|origin| !origin.is_every()) {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        match grant {
            Some(Grant::Listed(origin)) => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
            Some(Grant::Every) => {
                drop(headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")))
            }
            None => return,
        }
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }

    fn has_every(&self) -> bool {
        self.0.iter().any(Origin::is_every)
    }
}

impl Grant {
    /// Whether the grant covers the credentials of the request. If the list admits the origin only by `*`, the page
    /// must send its key itself. In this case, `Basic` credentials are refused, because a browser adds them by itself,
    /// also for pages that do not know the key.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let is_basic =
            |value: &HeaderValue| value.as_bytes().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"));
        match self {
            Grant::Listed(_) => true,
            Grant::Every => !headers.get_all(header::AUTHORIZATION).iter().any(is_basic),
        }
    }
}

/// The answer to a preflight; `None` if the request is no preflight. With a preflight, a browser asks whether a page
/// may send another request. That request may have any headers, because the handlers check them.
pub fn preflight(request: &Request) -> Option<Response> {
    let headers = request.headers();
    if *request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = success::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
    answer.insert(
        header::VARY,
        HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    // Browsers ask for this permission before a page from the internet may reach a server in the browser's own network.
    if headers.contains_key("access-control-request-private-network") {
        answer.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(&origins.iter().map(|origin| origin.parse().unwrap()).collect::<Vec<_>>())
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn marked(cors: &Cors, lines: &[(&'static str, &str)]) -> [Option<String>; 3] {
        let mut response = success::NO_CONTENT.into_response();
        cors.mark(cors.grant(&headers(lines)).as_ref(), &mut response);
        ["access-control-allow-origin", "access-control-allow-credentials", "vary"]
            .map(|name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_listed_origin_gets_its_own_name_and_every_other_one_a_star_without_credentials() {
        let some = |text: &str| Some(text.to_owned());
        let (a, b) = ("https://a.example", "https://b.example");
        assert_eq!(marked(&cors(&[]), &[("origin", a)]), [None, None, None]);
        assert_eq!(marked(&cors(&[a]), &[("origin", a)]), [some(a), some("true"), some("Origin")]);
        assert_eq!(marked(&cors(&[a]), &[("origin", b)]), [None, None, some("Origin")]);
        assert_eq!(marked(&cors(&[a]), &[]), [None, None, some("Origin")]);
        assert_eq!(marked(&cors(&[a]), &[("origin", a), ("origin", b)]), [None, None, some("Origin")]);
        assert_eq!(marked(&cors(&["*"]), &[("origin", b)]), [some("*"), None, None]);
        assert_eq!(marked(&cors(&["*"]), &[("origin", "null")]), [some("*"), None, None]);
        assert_eq!(marked(&cors(&["*", a]), &[("origin", a)]), [some(a), some("true"), some("Origin")]);
        assert_eq!(marked(&cors(&["*", a]), &[("origin", b)]), [some("*"), None, some("Origin")]);
    }

    #[test]
    fn a_star_does_not_admit_credentials_that_a_browser_adds() {
        let admitted = |origins: &[&str], key: &str| {
            let headers = headers(&[("origin", "https://a.example"), ("authorization", key)]);
            cors(origins).grant(&headers).unwrap().admits(&headers)
        };
        assert!(admitted(&["*"], "Bearer ltd_x") && !admitted(&["*"], "Basic dTpw") && !admitted(&["*"], "basic dTpw"));
        assert!(admitted(&["https://a.example"], "Basic dTpw"));
    }
}
