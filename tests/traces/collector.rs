//! A collector that takes OTLP over HTTP in its JSON form, and refuses everything that the form does not allow.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::PATIENCE;

#[derive(Clone)]
pub struct Collector {
    pub address: SocketAddr,
    received: Arc<Received>,
}

#[derive(Default)]
struct Received {
    bodies: Mutex<Vec<String>>,
    headers: Mutex<Vec<HeaderMap>>,
    spans: Mutex<Vec<Span>>,
    /// How many of the next requests are answered with 503.
    refusals: AtomicUsize,
}

/// A received span with the attributes of its process.
#[derive(Clone, Debug)]
pub struct Span {
    pub role: String,
    pub instance: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub state: String,
    pub name: String,
    pub kind: u8,
    /// Nanoseconds since 1970.
    pub begun: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, Value>,
    /// Trace and span of each link.
    pub links: Vec<(String, String)>,
    pub error: Option<String>,
}

impl Span {
    pub fn text(&self, attribute: &str) -> &str {
        self.attributes[attribute]["stringValue"].as_str().unwrap()
    }

    pub fn number(&self, attribute: &str) -> i64 {
        self.attributes[attribute]["intValue"].as_str().unwrap().parse().unwrap()
    }
}

impl Collector {
    pub async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, received) = (listener.local_addr().unwrap(), Arc::new(Received::default()));
        let router = Router::new().route("/v1/traces", post(take)).with_state(received.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Collector { address, received }
    }

    /// Answers the next requests with 503.
    pub fn refuse(&self, requests: usize) {
        self.received.refusals.store(requests, Ordering::SeqCst);
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bodies of all requests.
    pub fn bodies(&self) -> Vec<String> {
        self.received.bodies.lock().unwrap().clone()
    }

    pub fn headers(&self) -> Vec<HeaderMap> {
        self.received.headers.lock().unwrap().clone()
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap().clone()
    }

    /// The spans of a trace, in the order of their begin.
    pub fn spans_of(&self, trace: &str) -> Vec<Span> {
        let mut spans: Vec<Span> = self.spans().into_iter().filter(|span| span.trace == trace).collect();
        spans.sort_by_key(|span| span.begun);
        spans
    }

    /// Waits until the trace has spans of all of these names; returns its spans.
    pub async fn until(&self, trace: &str, names: &[&str]) -> Vec<Span> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let spans = self.spans_of(trace);
            if names.iter().all(|name| spans.iter().any(|span| span.name == *name)) {
                return spans;
            }
            assert!(std::time::Instant::now() < deadline, "{names:?} do not arrive: {spans:#?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// The only span of this name.
pub fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found[0]
}

async fn take(State(received): State<Arc<Received>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let refusals = &received.refusals;
    if refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    assert_eq!(headers["content-type"], "application/json");
    let text = String::from_utf8(body.to_vec()).unwrap();
    let export: Export = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    for of_process in export.resource_spans {
        let of = map(of_process.resource.attributes);
        let text = |name: &str| of[name]["stringValue"].as_str().unwrap().to_owned();
        assert_eq!(text("service.name"), "latentd");
        for of_scope in of_process.scope_spans {
            assert_eq!(of_scope.scope.name, "latentd");
            assert!(!of_scope.scope.version.is_empty());
            let spans =
                of_scope.spans.into_iter().map(|span| span.read(&text("latentd.role"), &text("service.instance.id")));
            received.spans.lock().unwrap().extend(spans);
        }
    }
    received.bodies.lock().unwrap().push(text);
    received.headers.lock().unwrap().push(headers);
    StatusCode::OK
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Export {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    name: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    key: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    trace_state: String,
    flags: u32,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    #[serde(default)]
    attributes: Vec<KeyValue>,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Link {
    trace_id: String,
    span_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    code: u8,
    message: String,
}

impl Written {
    fn read(self, role: &str, instance: &str) -> Span {
        let links: Vec<(String, String)> = self.links.into_iter().map(|link| (link.trace_id, link.span_id)).collect();
        assert_eq!(self.flags, 1, "only sampled spans are exported");
        for (trace, span) in links.iter().chain([&(self.trace_id.clone(), self.span_id.clone())]) {
            let is_id =
                |text: &str, length| text.len() == length && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
            assert!(is_id(trace, 32) && is_id(span, 16), "{trace} {span}");
        }
        let span = Span {
            role: role.to_owned(),
            instance: instance.to_owned(),
            trace: self.trace_id,
            id: self.span_id,
            parent: self.parent_span_id,
            state: self.trace_state,
            name: self.name,
            kind: self.kind,
            begun: self.start_time_unix_nano.parse().unwrap(),
            ended: self.end_time_unix_nano.parse().unwrap(),
            attributes: map(self.attributes),
            links,
            error: self.status.filter(|status| status.code == 2).map(|status| status.message),
        };
        assert!(span.begun > 0 && span.begun <= span.ended, "{span:?}");
        span
    }
}

fn map(pairs: Vec<KeyValue>) -> BTreeMap<String, Value> {
    pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()
}
