//! The fields of a request, from a JSON, form or multipart body of bounded size and time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRef, FromRequest, Request},
    http::{HeaderMap, header},
};
use futures::StreamExt;

use super::{error::ApiError, json, multipart, urlencoded};
use crate::{config::Http, generation::Fields};

/// How much of a refused body is read and thrown away, in bytes: a client that cannot finish sending sees a broken
/// connection where the answer should be.
const MAX_DISCARDED: usize = 64 << 20;

impl<S> FromRequest<S> for Fields
where
    Arc<Http>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let http = Arc::<Http>::from_ref(state);
        let kind = Kind::of(request.headers())?;
        let body = read(request, http.max_body_bytes, http.body_timeout_s.into()).await?;
        match kind {
            Kind::Json => json::object(&body).map(Fields::new),
            Kind::Form if body.trim_ascii_start().starts_with(b"{") => Err(ApiError::UnsupportedMediaType(
                "the body looks like JSON but is sent as a form; add the header Content-Type: application/json".into(),
            )),
            Kind::Form => urlencoded::pairs(&body).map(Fields::from_form),
            Kind::Multipart { boundary } => multipart::fields(&boundary, body).await,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Json,
    Form,
    Multipart { boundary: String },
}

impl Kind {
    fn of(headers: &HeaderMap) -> Result<Kind, ApiError> {
        let unsupported = |detail: String| Err(ApiError::UnsupportedMediaType(detail));
        if headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return unsupported("compressed bodies are not read; send it without Content-Encoding".into());
        }
        let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
            return unsupported("Content-Type is missing; send application/json".into());
        };
        let mut parts = value.split(';').map(|part| part.trim().to_ascii_lowercase());
        let essence = parts.next().unwrap_or_default();
        let foreign = parts.any(|parameter| match parameter.split_once('=') {
            Some(("charset", set)) => !matches!(set.trim_matches('"'), "utf-8" | "utf8" | "us-ascii"),
            _ => false,
        });
        if foreign {
            return unsupported("the body must be UTF-8".into());
        }
        match essence.as_str() {
            "application/json" => Ok(Kind::Json),
            "application/x-www-form-urlencoded" => Ok(Kind::Form),
            "multipart/form-data" => match multer::parse_boundary(value) {
                Ok(boundary) => Ok(Kind::Multipart { boundary }),
                Err(_) => unsupported("multipart/form-data must name its boundary".into()),
            },
            _ => unsupported(
                "Content-Type must be application/json, application/x-www-form-urlencoded or multipart/form-data"
                    .into(),
            ),
        }
    }
}

/// The whole body, if it has at most `limit` bytes and arrives before `timeout`.
async fn read(request: Request, limit: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    let (head, body) = request.into_parts();
    let announced =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let too_large = announced.is_some_and(|length| length > limit);
    // A client that expects 100-continue has not sent its body yet: the refusal spares it that.
    if too_large && head.headers.contains_key(header::EXPECT) {
        return Err(ApiError::BodyTooLarge { limit });
    }
    match tokio::time::timeout(timeout, collect(body, if too_large { 0 } else { limit })).await {
        Ok(Err(ApiError::BodyTooLarge { .. })) => Err(ApiError::BodyTooLarge { limit }),
        Ok(result) => result,
        Err(_) if too_large => Err(ApiError::BodyTooLarge { limit }),
        Err(_) => Err(ApiError::RequestTimeout),
    }
}

/// Collects up to `limit` bytes; reads on to the end of what is longer, within reason, and refuses it.
async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::BodyIncomplete)?;
        length += chunk.len();
        if length <= limit {
            bytes.extend_from_slice(&chunk);
        } else if length > limit.saturating_add(MAX_DISCARDED) {
            break;
        }
    }
    if length > limit {
        return Err(ApiError::BodyTooLarge { limit });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides() {
        let cases = [
            ("application/json", Some(Kind::Json)),
            ("Application/JSON; charset=\"UTF-8\"", Some(Kind::Json)),
            ("application/x-www-form-urlencoded", Some(Kind::Form)),
            ("application/json; charset=utf-16", None),
            ("text/plain", None),
            ("multipart/form-data; boundary=x", Some(Kind::Multipart { boundary: "x".into() })),
            ("multipart/form-data", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(Kind::of(&headers).ok(), expected, "{value}");
        }
        assert!(Kind::of(&HeaderMap::new()).is_err());
    }

    #[tokio::test]
    async fn a_body_of_the_limit_is_read_and_one_byte_more_is_not() {
        assert_eq!(collect(Body::from("12345"), 5).await.unwrap(), "12345");
        assert!(matches!(collect(Body::from("123456"), 5).await, Err(ApiError::BodyTooLarge { .. })));
    }
}
