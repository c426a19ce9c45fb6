//! `GET /v1/uploads/{sha256}`: pictures that were part of requests. The `params` of a generation show the digest of
//! each such picture.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::{
    caller::Caller,
    content::content_type,
    error::{ApiError, success},
    etag,
    path::Digest,
};
use crate::{
    imaging::FAST_FORMAT,
    service::{Service, ServiceError},
};

pub async fn get(
    State(service): State<Service>,
    caller: Caller,
    Digest(sha256): Digest,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = service.upload(&caller.tenant, &sha256).await.map_err(|error| match error {
        ServiceError::NotFound => ApiError::NotFound("upload"),
        error => error.into(),
    })?;
    let tag = format!("\"{sha256}\"");
    // The file under a digest never changes.
    let kept =
        [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned())];
    if etag::matches(&headers, &tag) {
        return Ok((success::NOT_MODIFIED, kept).into_response());
    }
    Ok((kept, content_type(&FAST_FORMAT.into()), file).into_response())
}
