//! Extracts names from paths. A malformed name is answered like an unknown one, except the id of a `PUT`.

use std::{collections::HashMap, convert::Infallible};

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use super::{
    error::{ApiError, invalid},
    url::{Location, kind_of},
};
use crate::generation::{DeliveryId, EndpointId, GenerationId, WorkKind};

/// The generation of `/v1/images/{id}…`, `/v1/audio/{id}…` and `/v1/videos/{id}…`.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub Location);

/// The kind of the generations that the path is about.
#[derive(Clone, Copy, Debug)]
pub struct Kind(pub WorkKind);

/// The id that a client has chosen in `PUT /v1/images/{id}`, `PUT /v1/audio/{id}` or `PUT /v1/videos/{id}`. The id must
/// be a UUID of version 7, like the server's own ids, so that ids sort by age and nobody guesses them.
#[derive(Clone, Copy, Debug)]
pub struct ClientChosenId(pub GenerationId);

/// The worker of `/admin/workers/{id}…`.
#[derive(Clone, Debug)]
pub struct WorkerName(pub String);

/// The key of `/admin/keys/{id}/…`.
#[derive(Clone, Debug)]
pub struct KeyName(pub String);

/// The artifact of `…/content/{n}`, with or without the extension of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub index: u32,
    /// Extension without the dot.
    pub extension: Option<String>,
}

/// The endpoint of `/v1/webhook_endpoints/{id}…`.
#[derive(Clone, Copy, Debug)]
pub struct EndpointName(pub EndpointId);

/// The delivery of `…/deliveries/{delivery}/…`.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryName(pub DeliveryId);

/// The picture of `/v1/uploads/{sha256}`: 64 hexadecimal digits.
#[derive(Clone, Debug)]
pub struct Digest(pub String);

/// The model of `/v1/models/{id}`.
#[derive(Clone, Debug)]
pub struct ModelName(pub String);

/// What errors call a file of this kind of work.
pub fn file_of(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Draw => "image",
        WorkKind::Sound | WorkKind::Film => kind.noun(),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = segment(parts, state, "id").await.and_then(|id| id.parse().ok());
        let kind = kind_of(parts.uri.path());
        id.map(|id| Id(Location { kind, id })).ok_or(ApiError::NotFound("generation"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Kind {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Kind(kind_of(parts.uri.path())))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientChosenId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = segment(parts, state, "id").await.and_then(|id| id.parse().ok());
        id.filter(GenerationId::is_version_7).map(ClientChosenId).ok_or_else(|| {
            invalid(
                "/id",
                "invalid_value",
                "id must be img_ and a UUID of version 7 in 26 characters of Crockford's base 32",
            )
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WorkerName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        segment(parts, state, "id").await.map(WorkerName).ok_or(ApiError::NotFound("worker"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for KeyName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        segment(parts, state, "id").await.map(KeyName).ok_or(ApiError::NotFound("key"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Content {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let n = segment(parts, state, "n").await;
        n.and_then(|n| content(&n)).ok_or(ApiError::NotFound(file_of(kind_of(parts.uri.path()))))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EndpointName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = segment(parts, state, "id").await.and_then(|id| id.parse().ok());
        id.map(EndpointName).ok_or(ApiError::NotFound("webhook endpoint"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DeliveryName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = segment(parts, state, "delivery").await.and_then(|id| id.parse().ok());
        id.map(DeliveryName).ok_or(ApiError::NotFound("webhook delivery"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Digest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let digest = segment(parts, state, "sha256").await;
        let is_digest =
            |text: &String| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        digest.filter(is_digest).map(Digest).ok_or(ApiError::NotFound("upload"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ModelName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        segment(parts, state, "id").await.map(ModelName).ok_or(ApiError::NotFound("model"))
    }
}

/// The text of a segment of the path.
pub(super) async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Option<String> {
    let Path(mut segments) = Path::<HashMap<String, String>>::from_request_parts(parts, state).await.ok()?;
    segments.remove(name)
}

fn content(text: &str) -> Option<Content> {
    let (digits, extension) = match text.split_once('.') {
        Some((digits, extension)) => (digits, Some(extension.to_owned())),
        None => (text, None),
    };
    // Each index has one form: no sign, no leading zeros.
    let index = digits.parse().ok().filter(|index: &u32| index.to_string() == digits)?;
    Some(Content { index, extension })
}

#[cfg(test)]
mod tests {
    use super::{Content, content};

    #[test]
    fn an_artifact_has_two_addresses_and_no_more() {
        let of = |index, extension: Option<&str>| Content { index, extension: extension.map(str::to_owned) };
        let cases = [
            ("0", Some(of(0, None))),
            ("12.png", Some(of(12, Some("png")))),
            // No artifact has such an extension.
            ("12.", Some(of(12, Some("")))),
            ("+1", None),
            ("01", None),
            ("01.png", None),
            (".png", None),
            ("", None),
            ("-1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(content(text), expected, "{text}");
        }
    }
}
