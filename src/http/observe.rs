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

use super::{error::ProblemDocument, routes};
use crate::metrics::Metrics;

const REQUEST_ID: &str = "x-request-id";

/// The middleware of the outermost layer.
pub async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let instance: String = request.uri().path().chars().take(256).collect();
    let face = routes::face_of(request.uri().path());
    metrics.http_open.inc();
    let mut line = Line {
        metrics,
        request_id: request_id.clone(),
        method: method(request.method()),
        route: request.extensions().get::<MatchedPath>().map_or("none".into(), |path| path.as_str().into()),
        began: Instant::now(),
        answer: None,
    };
    let span = tracing::info_span!("request", %request_id);
    let mut response = next.run(request).instrument(span).await;

    let problem = response.extensions_mut().remove::<ProblemDocument>();
    if let Some(problem) = problem.clone() {
        let problem = ProblemDocument { instance, request_id: request_id.clone(), ..problem };
        face.adapt_error(&problem, &mut response);
        face.render_error(&problem).write(&mut response);
    }
    line.answer = Some((response.status().as_u16(), problem));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert("latentd-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
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
    method: &'static str,
    route: String,
    began: Instant,
    answer: Option<(u16, Option<ProblemDocument>)>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Line { metrics, request_id, method, route, began, .. } = &*self;
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
                tracing::error!(%request_id, method, route, status, code, ms, cause, "request")
            }
            None => tracing::info!(%request_id, method, route, status, code, ms, "request"),
        }
    }
}
