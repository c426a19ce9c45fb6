//! The door: routes, extractors, errors, event streams, the web page.
//!
//! A handler extracts, calls the service and responds. Statuses come from [`error`], request ids, metrics and the log
//! line from `observe`, and every bound of a connection from [`listener`].

mod admin;
mod bodies;
mod body;
mod caller;
mod catalogue;
mod content;
mod create;
mod disposition;
pub mod error;
mod etag;
mod events;
mod face;
mod generation;
mod health;
mod host;
mod idempotency;
mod images;
mod json;
mod list;
pub mod listener;
mod multipart;
mod negotiate;
mod observe;
mod origin;
mod page;
mod path;
mod presence;
mod range;
mod routes;
pub mod signed;
mod spec;
mod sse;
mod uploads;
mod urlencoded;
mod webhooks;

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    extract::FromRef,
    http::{HeaderMap, StatusCode, Version, header},
    middleware,
    response::Response,
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
};

use face::Spoken;
use origin::Origins;
use signed::Signer;

pub use bodies::Bodies;
pub use listener::serve;
pub use routes::{Endpoint, operator_endpoints, public_endpoints};
pub use spec::OPENAPI_YAML;

/// What handlers share: cheap handles, cloned for every request.
#[derive(Clone, FromRef)]
pub struct AppState {
    pub service: Service,
    pub metrics: Metrics,
    /// The bounds and times of `[http]`.
    pub http: Arc<Http>,
    /// Bounds what the bodies of requests take in memory together.
    pub bodies: Bodies,
    /// Signs URLs of pictures.
    pub signer: Signer,
    /// The bounds of `[limits]`, as the catalogue tells them to clients.
    pub limits: Arc<Limits>,
    /// Cancelled when the server begins to stop: event streams then end and waiting requests are answered.
    pub draining: CancellationToken,
    /// Runs what must outlive a request, such as the cancellation for a client that left. Waited for at shutdown.
    pub afterwork: TaskTracker,
}

impl AppState {
    pub fn new(
        service: Service,
        metrics: Metrics,
        http: Http,
        limits: Limits,
        draining: CancellationToken,
        afterwork: TaskTracker,
    ) -> AppState {
        let (signer, bodies) = (Signer::new(&http), Bodies::new(&http));
        AppState {
            service,
            metrics,
            http: Arc::new(http),
            bodies,
            signer,
            limits: Arc::new(limits),
            draining,
            afterwork,
        }
    }
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("http", &self.http).finish_non_exhaustive()
    }
}

/// The API and the web page.
pub fn public_router(state: AppState) -> Router {
    let router = assemble(public_endpoints()).fallback(page::asset);
    let origins = Origins::public(&state.http);
    finish(guarded(router.with_state(state.clone()), origins), state.metrics)
}

/// Health, readiness, metrics and the operator's routes, for a listener that the public network does not reach.
pub fn operator_router(state: AppState, operator: &Operator) -> Router {
    let router = assemble(operator_endpoints()).fallback(page::nothing);
    finish(guarded(router.with_state(state.clone()), Origins::operator(operator)), state.metrics)
}

fn guarded(router: Router, origins: Origins) -> Router {
    router.layer(middleware::from_fn_with_state(origins, origin::check))
}

fn assemble<S: Clone + Send + Sync + 'static>(endpoints: Vec<Endpoint<S>>) -> Router<S> {
    let mut seen = BTreeSet::new();
    let own = endpoints.into_iter().filter(|end| seen.insert((end.method.to_string(), end.routed)));
    let routed = own.fold(Router::new(), |router, Endpoint { routed, handler, face, .. }| {
        let spoken = middleware::map_response(move |response| says(response, Spoken(face)));
        router.route(routed, handler.layer(spoken))
    });
    routed.method_not_allowed_fallback(page::wrong_method)
}

async fn says(mut response: Response, face: Spoken) -> Response {
    response.extensions_mut().insert(face);
    response
}

/// The layers around every route, the outermost last. Bodies are bounded by their extractor.
pub fn finish(router: Router, metrics: Metrics) -> Router {
    let compressed = SizeAbove::new(512).and(is_compressible);
    router
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(middleware::from_fn_with_state(metrics, observe::observe))
}

/// Texts only: pictures are compressed already, and an event must not wait in a compressor's buffer.
fn is_compressible(_: StatusCode, _: Version, headers: &HeaderMap, _: &axum::http::Extensions) -> bool {
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
