//! `POST /v1/verify`: what the content credentials of a file say, and whether they are intact.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRef, FromRequest, RawQuery, Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    AppState,
    bodies::{Bodies, BodyRoom},
    body::read,
    caller::Caller,
    error::{ApiError, invalid},
    negotiate::Prefer,
    recompute::{Recomputed, recompute},
    urlencoded,
};
use crate::{
    generation::{Fields, ImageField, ImageSource, Invalid},
    provenance::Report,
    watermark::Found,
};

/// The beginnings of the media types of bodies that are a file. The bytes tell which file it is.
const FILES: [&str; 5] = ["image/", "audio/", "video/", "application/octet-stream", "application/zip"];

/// A picture, film or sound: the body itself, or the field `image` of a form or of JSON.
pub struct File {
    bytes: Bytes,
    /// The room of the body is kept while the file is verified.
    _room: Option<BodyRoom>,
    _hold: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl<S> FromRequest<S> for File
where
    Bodies: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.to_ascii_lowercase();
        if FILES.iter().any(|file| kind.starts_with(file)) {
            let (bytes, room) = read(request, &Bodies::from_ref(state)).await?;
            return Ok(File { bytes, _room: room, _hold: None });
        }
        let mut fields = Fields::from_request(request, state).await?;
        let hold = fields.take_hold();
        let given = fields.pictures().into_iter().find(|(place, _)| *place == ImageField::Image);
        let errors = fields.finish();
        if !errors.is_empty() {
            return Err(ApiError::Invalid(Invalid { errors }));
        }
        match given {
            Some((_, ImageSource::File(bytes, _))) => Ok(File { bytes, _room: None, _hold: hold }),
            Some((_, ImageSource::Upload(_))) => {
                let detail = "image must be the whole file: the stored copy of an upload has no content credentials";
                Err(invalid("/image", "invalid_value", detail))
            }
            None => {
                Err(invalid("/image", "required", "image is required: a PNG, JPEG, WebP, GIF, WAV, FLAC or MP4 file"))
            }
        }
    }
}

/// The answer: the report, the watermark, and the comparison with a new file if the client wants one.
#[derive(Debug, Serialize)]
struct Verification {
    #[serde(flatten)]
    report: Report,
    /// Always `None` for files that are no pictures, in which the server does not look for a watermark.
    watermark: Option<Found>,
    recomputed: Option<Recomputed>,
}

/// `POST /v1/verify`. With `?recompute=true`, makes the file again.
pub async fn verify(
    State(state): State<AppState>,
    caller: Caller,
    prefer: Prefer,
    RawQuery(query): RawQuery,
    file: File,
) -> Result<Response, ApiError> {
    let mut query = urlencoded::query(query.as_deref())?;
    let again = query.flag("recompute").unwrap_or_default();
    let errors = query.finish();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Invalid { errors }));
    }
    let report = state.service.verify(file.bytes.clone()).await?;
    let watermark = if report.is_picture() { state.service.watermark(file.bytes.clone()).await } else { None };
    drop(file);
    let recomputed = if again { Some(recompute(&state, caller, prefer, &report).await?) } else { None };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(Verification { report, watermark, recomputed })).into_response())
}
