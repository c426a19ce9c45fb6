//! Serves the bytes of artifacts and previews.

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{Extensions, HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use super::{
    AppState,
    caller::Caller,
    error::{ApiError, success},
    etag,
    file_name::disposition,
    listener::AnswerRoom,
    path::{Content, Id, file_of},
    range,
};
use crate::generation::{Artifact, MediaType, Record};

/// `GET /v1/images/{id}/content/{n}`, and the same below `/v1/audio` and `/v1/videos`: the file of an artifact, or a
/// range of the file.
pub async fn content(
    State(AppState { service, signer, .. }): State<AppState>,
    caller: Result<Caller, ApiError>,
    Id(at): Id,
    Content { index, extension }: Content,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    let reader = signer.reader(&at.artifact(index), query.as_deref(), caller)?;
    let (record, artifact) = service.artifact(reader.access().of_kind(at.kind), at.id, index).await?;
    if extension.is_some() && extension.as_deref() != artifact.extension() {
        return Err(ApiError::NotFound(file_of(at.kind)));
    }
    let tag = tag(&artifact);
    if etag::matches(&headers, &tag) {
        return Ok((success::NOT_MODIFIED, kept(&artifact)).into_response());
    }
    // The file is read only after there is room for it in memory. The room is kept until the answer is sent.
    let room = AnswerRoom::of(&extensions, artifact.bytes).await?.map(Extension);
    let bytes = service.file(&artifact).await?;
    let length = bytes.len();
    let Some(part) = range::wanted(&headers, length, &tag)? else {
        return Ok((room, file(&record, &artifact, bytes)).into_response());
    };
    let place = format!("bytes {}-{}/{length}", part.start, part.end - 1);
    Ok((success::PARTIAL, room, [(header::CONTENT_RANGE, place)], file(&record, &artifact, bytes.slice(part)))
        .into_response())
}

/// A response with a file or a part of it, its name, and the headers that caches need.
pub fn file(record: &Record, artifact: &Artifact, bytes: Bytes) -> impl IntoResponse + use<> {
    (
        kept(artifact),
        disposition(record, artifact),
        content_type(&artifact.media_type),
        [(header::ACCEPT_RANGES, "bytes")],
        bytes,
    )
}

/// The headers for caches: the file under a path never changes.
fn kept(artifact: &Artifact) -> [(HeaderName, String); 2] {
    [(header::ETAG, tag(artifact)), (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned())]
}

fn tag(artifact: &Artifact) -> String {
    format!("\"{}\"", artifact.sha256)
}

pub fn content_type(media_type: &MediaType) -> [(HeaderName, String); 1] {
    [(header::CONTENT_TYPE, media_type.to_string())]
}

/// `GET /v1/images/{id}/preview`, also of films: the newest preview, or 204 if there is none.
pub async fn preview(
    State(AppState { service, signer, .. }): State<AppState>,
    caller: Result<Caller, ApiError>,
    Id(at): Id,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let reader = signer.reader(&at.preview(), query.as_deref(), caller)?;
    let uncached = [(header::CACHE_CONTROL, "no-store")];
    match service.preview(reader.access().of_kind(at.kind), at.id).await? {
        Some(preview) => Ok((uncached, content_type(&preview.media_type), preview.bytes).into_response()),
        None => Ok((success::NO_CONTENT, uncached).into_response()),
    }
}
