//! Adds the request id and common headers to every response, writes the body of errors, and records metrics and a log
//! line.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use super::{error::ProblemDocument, face::Face, routes};
use crate::{
    generation::TraceContext,
    metrics::Metrics,
    telemetry::{OpenSpan, SpanKind, Tracer},
};

const REQUEST_ID: &str = "x-request-id";

/// The middleware of the outermost layer.
pub async fn observe(State((metrics, tracer)): State<(Metrics, Tracer)>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let mut traced = open_span(&tracer, &request);
    let context = traced.context().clone();
    request.extensions_mut().insert(context.clone());
    let instance: String = request.uri().path().chars().take(256).collect();
    let face = routes::face_of_request(request.uri().path(), request.headers());
    metrics.http_open.inc();
    let mut line = Line {
        metrics,
        request_id: request_id.clone(),
        trace: context.clone(),
        method: method(request.method()),
        route: route(&request).to_owned(),
        began: Instant::now(),
        answer: None,
    };
    // The span has the level of errors, so that the filter of the log never removes these ids from errors.
    let span = tracing::error_span!("request", %request_id, trace_id = ?context.trace);
    let mut response = next.run(request).instrument(span).await;

    // If the form of the answer depends on the body, the handler chooses it instead of the head of the request.
    let face = response.extensions_mut().remove::<&'static dyn Face>().unwrap_or(face);
    let problem = response.extensions_mut().remove::<ProblemDocument>();
    if let Some(problem) = problem.clone() {
        let problem = ProblemDocument { instance, request_id: request_id.clone(), ..problem };
        face.adapt_error(&problem, &mut response);
        face.render_error(&problem).write(&mut response);
    }
    note_answer(&mut traced, &response, problem.as_ref());
    line.answer = Some((response.status().as_u16(), problem));
    let headers = response.headers_mut();
    if let Ok(answered) = HeaderValue::try_from(context.traceparent()) {
        headers.insert("traceresponse", answered);
    }
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert("latentd-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Begins the span of a request, in the trace of its `traceparent`, otherwise in a new one.
fn open_span(tracer: &Tracer, request: &Request) -> OpenSpan {
    let values = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    let parent = TraceContext::read(values("traceparent"), values("tracestate"));
    let (method, route) = (method(request.method()), route(request));
    let mut span = tracer.open(parent.as_ref(), &format!("{method} {route}"), SpanKind::Server);
    span.set("http.request.method", method);
    span.set("http.route", route);
    span
}

fn note_answer(span: &mut OpenSpan, response: &Response, problem: Option<&ProblemDocument>) {
    span.set("http.response.status_code", u32::from(response.status().as_u16()));
    if let Some(id) = response.headers().get("latentd-generation-id").and_then(|id| id.to_str().ok()) {
        span.set("latentd.generation.id", id);
    }
    if let Some(problem) = problem {
        span.set("error.type", problem.code);
    }
    if response.status().is_server_error() {
        span.fail(problem.map_or("internal", |problem| problem.code));
    }
}

/// The pattern of the request's route, which contains nothing that the client has written.
fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str)
}

/// The client's own id if it is safe in a log, otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match sent.filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(allowed)) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::now_v7().simple().to_string(),
    }
}

/// The method as a label of metrics. Unknown methods share one label, so that clients cannot create metrics.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Counts and logs a request when this value is dropped, even if the client disconnected before the answer.
struct Line {
    metrics: Metrics,
    request_id: String,
    trace: TraceContext,
    method: &'static str,
    route: String,
    began: Instant,
    answer: Option<(u16, Option<ProblemDocument>)>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Line { metrics, request_id, trace, method, route, began, .. } = &*self;
        let trace_id = tracing::field::debug(trace.trace);
        let seconds = began.elapsed().as_secs_f64();
        let (status, problem) = self.answer.clone().unwrap_or((499, None));
        let code = match &problem {
            Some(problem) => problem.code,
            None if status == 499 => "client_disconnected",
            None => "",
        };
        metrics.http_open.dec();
        metrics.http_requests.with_label_values(&[route.as_str(), method, &status.to_string()]).inc();
        metrics.http_seconds.with_label_values(&[route.as_str()]).observe(seconds);
        if !code.is_empty() && matches!(status, 400..499 | 503) {
            metrics.refused.with_label_values(&[code]).inc();
        }
        let ms = (seconds * 1e6).round() / 1e3;
        match problem.and_then(|problem| problem.cause) {
            Some(cause) => {
                tracing::error!(%request_id, trace_id, method, route, status, code, ms, cause, "request")
            }
            None => tracing::info!(%request_id, trace_id, method, route, status, code, ms, "request"),
        }
    }
}
