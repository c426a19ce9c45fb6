//! One operation of a listener, as a row of the table of routes.

use axum::{http::Method, routing::MethodRouter};

use super::AppState;

/// One operation of a listener.
pub struct Route<S = AppState> {
    pub method: Method,
    /// Path in the syntax that axum and OpenAPI share, such as `/v1/images/{id}`.
    pub path: &'static str,
    /// Path in the router. Operations with the same path here share a handler.
    pub(super) routed: &'static str,
    pub(super) handler: MethodRouter<S>,
}

impl<S> std::fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}
