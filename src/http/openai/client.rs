//! The sender of a request, and the parts of the request's head that the answer needs.

use axum::{
    extract::FromRequestParts,
    http::{Extensions, HeaderMap, request::Parts},
};

use crate::{
    http::{AppState, base::Base, caller::Caller, error::ApiError, idempotency::IdempotencyKey},
    service::Repeatable,
};

/// The header with the number of a try, from 0. OpenAI's SDKs send this header with every request, and repeat requests
/// by themselves.
const RETRY_COUNT: &str = "x-stainless-retry-count";

/// The sender of a request.
#[derive(Debug)]
pub struct Client {
    pub caller: Caller,
    pub key: Repeatable,
    pub path: String,
    /// Whether the client repeats requests by itself.
    pub repeats: bool,
    /// Whether this request is a repetition.
    pub is_retry: bool,
    /// The address under which the client knows this server.
    pub base: Base,
    /// The extensions of the request.
    pub extensions: Extensions,
}

impl FromRequestParts<AppState> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let key = IdempotencyKey::from_request_parts(parts, state).await?.repeatable();
        let retries = retry_count(&parts.headers);
        Ok(Client {
            caller,
            key,
            path: parts.uri.path().to_owned(),
            repeats: retries.is_some(),
            is_retry: retries.is_some_and(|count| count > 0),
            base: parts.extensions.get().cloned().unwrap_or_default(),
            extensions: parts.extensions.clone(),
        })
    }
}

fn retry_count(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_COUNT)?.to_str().ok()?.trim().parse().ok()
}
