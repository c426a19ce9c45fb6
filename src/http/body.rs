//! Reads the fields of a request from a JSON, form or multipart body, within bounds of size and time.

use axum::{
    body::{BodyDataStream, Bytes},
    extract::{FromRef, FromRequest, Request},
    http::{HeaderMap, header},
};
use futures::StreamExt;

use super::{
    bodies::{Bodies, BodyRoom},
    error::ApiError,
    json, multipart, urlencoded,
};
use crate::{
    generation::Fields,
    service::{AT_ONCE_BYTES, offload},
};

/// Maximum bytes of a refused body that are read and discarded.
const MAX_DISCARDED: usize = 64 << 20;

impl<S> FromRequest<S> for Fields
where
    Bodies: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bodies = Bodies::from_ref(state);
        let kind = Kind::of(request.headers())?;
        let (body, room) = read(request, &bodies).await?;
        let length = body.len();
        let fields = offload(length, move || kind.fields(body)).await?;
        Ok(fields.of_body(length, room.map(|room| Box::new(room) as Box<_>)))
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
            return unsupported("compressed bodies are not supported; send the body without Content-Encoding".into());
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
        // JSON is always UTF-8; it has no "charset" parameter (RFC 8259, section 11).
        if foreign && essence != "application/json" {
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

    fn fields(self, body: Bytes) -> Result<Fields, ApiError> {
        match self {
            Kind::Json => json::object(&body).map(Fields::new),
            Kind::Form if body.trim_ascii_start().starts_with(b"{") => Err(ApiError::UnsupportedMediaType(
                "the body looks like JSON but is sent as a form; add the header Content-Type: application/json".into(),
            )),
            Kind::Form => urlencoded::pairs(&body).map(Fields::from_form),
            Kind::Multipart { boundary } => multipart::fields(&boundary, body),
        }
    }
}

/// Reads the whole body and takes the room that it needs. Refuses a body that is too large or too slow. If the
/// announced length is too large, nothing of the body is kept.
pub(super) async fn read(request: Request, bodies: &Bodies) -> Result<(Bytes, Option<BodyRoom>), ApiError> {
    let (head, body) = request.into_parts();
    let limit = bodies.max_bytes();
    let announced =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut arriving = Arriving { chunks: body.into_data_stream(), bytes: Vec::new(), length: 0 };
    let timeout = bodies.timeout();
    if announced.is_some_and(|length| length > limit) {
        // A client that expects 100-continue has not sent its body yet, so nothing needs to be discarded.
        if !head.headers.contains_key(header::EXPECT) {
            arriving.discard(bodies);
        }
        return Err(ApiError::BodyTooLarge { limit });
    }
    let in_time = async |arriving: &mut Arriving, most| {
        let arrived = tokio::time::timeout(timeout, arriving.up_to(most)).await;
        arrived.unwrap_or(Err(ApiError::RequestTimeout))
    };
    // Small bodies need no room. A request takes room only after its client has sent more than a small body, so that a
    // silent client holds no room.
    if in_time(&mut arriving, AT_ONCE_BYTES.min(limit)).await? {
        return Ok((arriving.bytes.into(), None));
    }
    let mut refusal = ApiError::BodyTooLarge { limit };
    if arriving.length <= limit {
        match bodies.room(announced.unwrap_or(limit)).await {
            Ok(mut room) => {
                arriving.bytes.reserve_exact(announced.unwrap_or_default().saturating_sub(arriving.length));
                if in_time(&mut arriving, limit).await? {
                    room.shrink_to(arriving.length);
                    return Ok((arriving.bytes.into(), Some(room)));
                }
            }
            Err(full) => refusal = full,
        }
    }
    arriving.discard(bodies);
    Err(refusal)
}

/// A body that is arriving.
struct Arriving {
    chunks: BodyDataStream,
    bytes: Vec<u8>,
    /// Bytes received so far, kept or discarded.
    length: usize,
}

impl Arriving {
    /// Keeps chunks until there are more than `most` bytes. Returns whether the body ended before that.
    async fn up_to(&mut self, most: usize) -> Result<bool, ApiError> {
        while self.length <= most {
            let Some(chunk) = self.chunks.next().await else { return Ok(true) };
            let chunk = chunk.map_err(|_| ApiError::BodyIncomplete)?;
            self.length += chunk.len();
            self.bytes.extend_from_slice(&chunk);
        }
        Ok(false)
    }

    /// Reads and discards up to [`MAX_DISCARDED`] more bytes while the answer is sent. Otherwise a client that sends
    /// its whole body before it reads would see a broken connection instead of the answer.
    fn discard(self, bodies: &Bodies) {
        let Arriving { mut chunks, length, .. } = self;
        let rest = async move {
            let (mut length, end) = (length, length.saturating_add(MAX_DISCARDED));
            while length <= end
                && let Some(Ok(chunk)) = chunks.next().await
            {
                length += chunk.len();
            }
        };
        bodies.afterwork().spawn(tokio::time::timeout(bodies.timeout(), rest));
    }
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
            ("application/json; charset=iso-8859-1", Some(Kind::Json)),
            ("application/x-www-form-urlencoded; charset=iso-8859-1", None),
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
}
