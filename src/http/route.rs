//! One operation of a listener, as a row of the table of routes.

use axum::{http::Method, routing::MethodRouter};

use super::AppState;

/// One operation of a listener.
pub struct Route<S = AppState> {
    pub method: Method,
    /// The path in `openapi.yaml`, such as `/v1/models/{id}`.
    pub path: &'static str,
    /// The path in axum's router, such as `/v1/models/{*id}`. Operations with the same method and the same path in the
    /// router share a handler.
    pub(super) routed: &'static str,
    pub(super) handler: MethodRouter<S>,
}

impl<S> std::fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}
