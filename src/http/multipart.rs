//! `multipart/form-data` bodies: texts and files (RFC 7578).

use axum::body::Bytes;
use multer::{Constraints, Multipart};

use super::error::ApiError;
use crate::generation::Fields;

/// More parts than this are no form.
const MAX_PARTS: usize = 100;

/// The fields of a body. A part with a file name or an `image/…` type is a file, any other a text.
///
/// # Errors
/// `malformed_form` where the body does not follow its boundary, a text is not UTF-8, or a part has no name.
pub async fn fields(boundary: &str, body: Bytes) -> Result<Fields, ApiError> {
    let malformed = |detail: String| ApiError::MalformedForm(detail);
    let whole = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(body) });
    let mut parts = Multipart::with_constraints(whole, boundary, Constraints::new());
    let (mut texts, mut files) = (Vec::new(), Vec::new());
    while let Some(part) = parts.next_field().await.map_err(|error| malformed(error.to_string()))? {
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(malformed("a part has no name".into()));
        };
        let picture = part.content_type().is_some_and(|kind| kind.type_() == "image");
        let file = part.file_name().is_some() || picture;
        let bytes = part.bytes().await.map_err(|error| malformed(error.to_string()))?;
        if file {
            files.push((name, bytes.to_vec()));
        } else {
            let text = String::from_utf8(bytes.to_vec());
            texts.push((name.clone(), text.map_err(|_| malformed(format!("the value of {name} is not UTF-8")))?));
        }
        if texts.len() + files.len() > MAX_PARTS {
            return Err(malformed(format!("the body has more than {MAX_PARTS} parts")));
        }
    }
    Ok(Fields::from_multipart(texts, files))
}
