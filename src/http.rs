//! The HTTP API and the web page: routes, extractors, errors, event streams.
//!
//! A handler extracts the parts of the request, calls the service and makes the response. [`error`] chooses the status
//! codes, `observe` adds request ids, metrics and the log line, and [`listener`] bounds the connections.

mod admin;
mod base;
mod bodies;
mod body;
mod caller;
mod catalogue;
mod content;
mod cors;
mod create;
mod disposition;
pub mod error;
mod etag;
mod events;
mod face;
mod file_name;
mod follower;
mod generation;
mod health;
mod host;
mod idempotency;
mod images;
mod json;
pub mod keys;
mod list;
pub mod listener;
mod multipart;
mod negotiate;
mod observe;
mod ollama;
mod openai;
mod operator_access;
mod origin;
mod page;
mod path;
mod presence;
mod range;
mod rate_limit;
mod recompute;
mod route;
mod routes;
mod sdapi;
pub mod signed;
mod spec;
mod sse;
mod tenant_events;
mod tries;
mod uploads;
mod url;
mod urlencoded;
mod usage;
mod verify;
mod warnings;
mod webhooks;

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    extract::FromRef,
    http::{HeaderMap, StatusCode, Version, header},
    middleware,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, Predicate, predicate::SizeAbove},
};

use crate::{
    config::{Http, Operator},
    generation::Limits,
    metrics::Metrics,
    service::Service,
    telemetry::Tracer,
};

use base::Bases;
use operator_access::OperatorAccess;
use origin::Origins;
use signed::Signer;
use tries::Tries;

pub use bodies::Bodies;
pub use listener::serve;
pub use route::Route;
pub use routes::{operator_routes, public_routes};
pub use spec::OPENAPI_YAML;

/// State that all handlers share. Its fields are cheap handles; every request gets a clone.
#[derive(Clone, FromRef)]
pub struct AppState {
    pub service: Service,
    pub metrics: Metrics,
    /// Records the spans of requests.
    pub tracer: Tracer,
    /// The settings of `[http]`.
    pub http: Arc<Http>,
    /// Bounds the memory that the bodies of all requests take together.
    pub bodies: Bodies,
    /// Signs URLs of files, previews and events.
    pub signer: Signer,
    /// The bounds of `[limits]`, which `GET /v1/models` shows to clients.
    pub limits: Arc<Limits>,
    /// Canceled when the server begins to stop; then event streams end and waiting requests are answered.
    pub draining: CancellationToken,
    /// Recognizes requests that clients repeat by themselves, even without an idempotency key.
    pub tries: Tries,
    /// The model that each tenant has chosen through the A1111 face.
    sdapi_models: sdapi::ChosenModels,
    /// Runs tasks that must outlive their request, such as the cancellation for a client that disconnected. The
    /// shutdown waits for them.
    pub afterwork: TaskTracker,
}

impl AppState {
    pub fn new(
        service: Service,
        metrics: Metrics,
        tracer: Tracer,
        http: Http,
        limits: Limits,
        draining: CancellationToken,
        afterwork: TaskTracker,
    ) -> AppState {
        let (signer, bodies) = (Signer::new(&http), Bodies::new(&http, afterwork.clone()));
        let tries = Tries::new(&http, draining.clone());
        AppState {
            service,
            metrics,
            tracer,
            http: Arc::new(http),
            bodies,
            signer,
            limits: Arc::new(limits),
            draining,
            tries,
            sdapi_models: sdapi::ChosenModels::default(),
            afterwork,
        }
    }
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("http", &self.http).finish_non_exhaustive()
    }
}

/// The router of the public listener: the API and the web page.
pub fn public_router(state: AppState) -> Router {
    let router = assemble(public_routes()).layer(middleware::from_fn(rate_limit::show)).fallback(page::asset);
    let (origins, bases) = (Origins::public(&state.http), Bases::new(&state.http, true));
    finish(guarded(router.with_state(state.clone()), origins, bases), state.metrics, state.tracer)
}

/// The router of the operator's listener: health, metrics and administration. With `operator.token`, administration
/// requires the token or an API key with the scope `admin`. Probes and scrapes come every few seconds, so requests of
/// this listener have no spans.
pub fn operator_router(state: AppState, operator: &Operator) -> Router {
    let access = OperatorAccess::new(state.service.clone(), operator);
    let check = middleware::from_fn_with_state(access, operator_access::check);
    let router = assemble(operator_routes()).fallback(page::nothing).layer(check);
    let (origins, bases) = (Origins::operator(operator), Bases::new(&state.http, false));
    finish(guarded(router.with_state(state.clone()), origins, bases), state.metrics, Tracer::off())
}

fn guarded(router: Router, origins: Origins, bases: Bases) -> Router {
    router
        .layer(middleware::from_fn_with_state(bases, base::provide))
        .layer(middleware::from_fn_with_state(origins, origin::check))
}

fn assemble<S: Clone + Send + Sync + 'static>(endpoints: Vec<Route<S>>) -> Router<S> {
    let mut seen = BTreeSet::new();
    let distinct = endpoints.into_iter().filter(|route| seen.insert((route.method.to_string(), route.routed)));
    let routed = distinct.fold(Router::new(), |router, Route { routed, handler, .. }| router.route(routed, handler));
    routed.method_not_allowed_fallback(page::wrong_method)
}

/// Adds the layers around every route, the outermost last. The layer that disables axum's bound on the size of bodies
/// is here because the extractor of bodies has its own bound.
pub fn finish(router: Router, metrics: Metrics, tracer: Tracer) -> Router {
    let compressed = SizeAbove::new(512).and(is_compressible);
    router
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(middleware::from_fn_with_state((metrics, tracer), observe::observe))
}

/// Whether a response should be compressed: only text should. Pictures are compressed already, also inside JSON; a JSON
/// answer with pictures has an [`AnswerRoom`](listener::AnswerRoom). Event streams stay uncompressed, because an event
/// must not wait in a compressor's buffer.
fn is_compressible(_: StatusCode, _: Version, headers: &HeaderMap, extensions: &axum::http::Extensions) -> bool {
    if extensions.get::<listener::AnswerRoom>().is_some() {
        return false;
    }
    const KINDS: [&str; 7] = [
        "application/json",
        "application/problem+json",
        "application/schema+json",
        "text/html",
        "text/css",
        "text/javascript",
        "application/yaml",
    ];
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    KINDS.iter().any(|compressible| kind.starts_with(compressible))
}
