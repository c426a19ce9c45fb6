//! The bytes of pictures and previews.

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
    error::{ApiError, location, success},
    etag, generation,
    listener::Room,
    path::{Id, Index},
    range,
};
use crate::{
    generation::{GenerationId, Image},
    service::{Access, Service},
};

/// Where the API keeps a picture.
pub fn url(id: &GenerationId, index: u32) -> String {
    format!("{}/content/{index}", location(id))
}

pub async fn content(
    State(AppState { service, signer, .. }): State<AppState>,
    caller: Result<Caller, ApiError>,
    Id(id): Id,
    Index(index): Index,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    // A signed URL is a right of its own, with which no key is asked for.
    let signed = signer.verify(&url(&id, index), query.as_deref().unwrap_or_default(), generation::now())?;
    let image = match signed {
        true => service.image(Access::Full, id, index).await?,
        false => service.image(caller?.access(), id, index).await?,
    };
    let tag = tag(&image);
    if etag::matches(&headers, &tag) {
        return Ok((success::NOT_MODIFIED, kept(&image)).into_response());
    }
    // The file is read when there is room for it in memory, and holds that room until it is sent.
    let room = Room::of(&extensions, image.bytes).await?.map(Extension);
    let bytes = service.file(&image).await?;
    let length = bytes.len();
    let Some(part) = range::wanted(&headers, length, &tag)? else {
        return Ok((room, file(&image, bytes)).into_response());
    };
    let place = format!("bytes {}-{}/{length}", part.start, part.end - 1);
    Ok((success::PARTIAL, room, [(header::CONTENT_RANGE, place)], file(&image, bytes.slice(part))).into_response())
}

/// A picture, or a part of it, with what caches need to know.
pub fn file(image: &Image, bytes: Bytes) -> impl IntoResponse + use<> {
    (kept(image), [(header::CONTENT_TYPE, "image/png"), (header::ACCEPT_RANGES, "bytes")], bytes)
}

/// A picture never changes under its address.
fn kept(image: &Image) -> [(HeaderName, String); 2] {
    [(header::ETAG, tag(image)), (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned())]
}

fn tag(image: &Image) -> String {
    format!("\"{}\"", image.sha256)
}

pub async fn preview(State(service): State<Service>, caller: Caller, Id(id): Id) -> Result<Response, ApiError> {
    let uncached = [(header::CACHE_CONTROL, "no-store")];
    match service.preview(caller.access(), id).await? {
        Some(preview) => Ok((uncached, [(header::CONTENT_TYPE, "image/png")], preview.png).into_response()),
        None => Ok((success::NO_CONTENT, uncached).into_response()),
    }
}
