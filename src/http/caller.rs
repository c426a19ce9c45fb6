//! Finds out who sends a request.

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, Method, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::error::ApiError;
use crate::{
    generation::{Scope, TraceContext},
    service::{Allowances, Service},
};

pub use crate::service::Caller;

/// The sender of a request under `/v1`, `/sdapi` or `/api`, found by the key in `Authorization`. A request without a
/// key belongs to the tenant [`ANONYMOUS`](crate::service::ANONYMOUS), unless the settings require a key. For GET and
/// HEAD, the key needs the scope `read`, and for every other method the scope `generate`.
impl<S> FromRequestParts<S> for Caller
where
    Service: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let key = key(&parts.headers);
        let caller = Service::from_ref(state).caller(key.as_deref()).await?;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        caller.require(if reads { Scope::Read } else { Scope::Generate })?;
        let allowances = parts.extensions.get::<Allowances>().cloned().unwrap_or_default();
        let trace = parts.extensions.get::<TraceContext>().cloned();
        Ok(Caller { allowances, trace, ..caller })
    }
}

/// Reads the key in `Authorization`: `Bearer KEY`, or `Basic` with the key as the password, for clients that support
/// nothing else. `None` if the header is absent. An unreadable header gives the empty key, which is invalid. The server
/// sets no cookies and never asks for `Basic`. A browser may still add stored `Basic` credentials by itself; therefore
/// [`origin`](super::origin) refuses changes that pages of foreign sites request.
pub(super) fn key(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return None,
        (Some(value), None) => value.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => "",
    };
    let (scheme, credentials) = value.trim().split_once(' ').unwrap_or_default();
    let key = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(credentials.trim().to_owned()),
        "basic" => BASE64_STANDARD.decode(credentials.trim()).ok().and_then(|pair| {
            let pair = String::from_utf8(pair).ok()?;
            pair.split_once(':').map(|(_, password)| password.to_owned())
        }),
        _ => None,
    };
    Some(key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_token_or_a_password() {
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for (value, expected) in [
            ("Bearer ltd_x".to_owned(), Some("ltd_x")),
            ("bearer  ltd_x ".to_owned(), Some("ltd_x")),
            (basic("user:ltd_x"), Some("ltd_x")),
            (basic(":ltd:x"), Some("ltd:x")),
            (basic("user"), None),
            ("Basic %%%".to_owned(), None),
            ("Digest ltd_x".to_owned(), None),
            ("ltd_x".to_owned(), None),
            (String::new(), None),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(key(&headers).as_deref(), Some(expected.unwrap_or_default()), "{value}");
        }
        assert!(key(&HeaderMap::new()).is_none());
        let line = || (header::AUTHORIZATION, "Bearer ltd_x".parse().unwrap());
        let mut twice = HeaderMap::new();
        [line(), line()].into_iter().for_each(|(name, value)| {
            twice.append(name, value);
        });
        assert_eq!(key(&twice).as_deref(), Some(""), "of two keys none is taken");
    }
}
