//! Reads `multipart/form-data` bodies (RFC 7578): texts and files.

use axum::body::Bytes;
use futures::FutureExt;
use multer::{Constraints, Field, Multipart};

use super::{disposition::Disposition, error::ApiError};
use crate::generation::Fields;
use memchr::memmem;

/// Parses the fields of a body. A part with a file name or an `image/…` type is a file. A part that is not UTF-8 is
/// also a file if its type is `application/octet-stream` or its name is `image`, `image[]` or `mask`. Any other part is
/// a text.
///
/// # Errors
/// `malformed_form` if the body does not follow its boundary, a text is not UTF-8, a part has no name, there are more
/// than [`Fields::MOST_IN_FORM`] parts, or the head of a part is longer than [`LONGEST_HEAD`].
pub fn fields(boundary: &str, body: Bytes) -> Result<Fields, ApiError> {
    check_heads(boundary, &body)?;
    // The whole body is in memory, so its reader never waits.
    read(boundary, body).now_or_never().unwrap_or_else(|| Err(malformed("the body does not end".into())))
}

/// Largest head of a part, in bytes. The bound exists because the reader copies each head several times. It copies the
/// content of a part only once, together with the whole body.
const LONGEST_HEAD: usize = 8 << 10;

/// Checks the number of parts and the length of their heads. A delimiter counts only at the beginning of a line.
fn check_heads(boundary: &str, body: &[u8]) -> Result<(), ApiError> {
    let delimiter = format!("--{boundary}");
    let found = memmem::find_iter(body, delimiter.as_bytes());
    let begins_line = |at: &usize| *at == 0 || body[..*at].ends_with(b"\r\n");
    // The last delimiter begins no part, so there may be one more delimiter than parts.
    for (count, at) in found.filter(begins_line).enumerate() {
        if count > Fields::MOST_IN_FORM {
            return Err(too_many());
        }
        let rest = &body[at + delimiter.len()..];
        if rest.get(..LONGEST_HEAD).is_some_and(|head| memmem::find(head, b"\r\n\r\n").is_none()) {
            return Err(malformed(format!("the head of a part is longer than {LONGEST_HEAD} bytes")));
        }
    }
    Ok(())
}

async fn read(boundary: &str, body: Bytes) -> Result<Fields, ApiError> {
    let whole = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(body) });
    let mut parts = Multipart::with_constraints(whole, boundary, Constraints::new());
    let (mut texts, mut files, mut count) = (Vec::new(), Vec::new(), 0);
    while let Some(part) = parts.next_field().await.map_err(|error| malformed(error.to_string()))? {
        count += 1;
        if count > Fields::MOST_IN_FORM {
            return Err(too_many());
        }
        let Disposition { name, filename } = Disposition::of(part.headers());
        let Some(name) = name else {
            return Err(malformed("a part has no name: Content-Disposition must read form-data; name=\"…\"".into()));
        };
        let kind = part.content_type().map_or("", |kind| kind.essence_str()).to_owned();
        let bytes = content(part).await.map_err(|error| malformed(error.to_string()))?;
        match std::str::from_utf8(&bytes) {
            // Browsers send this for a file field in which no file was chosen.
            Ok("") if filename.as_deref() == Some("") => {}
            _ if filename.is_some() || kind.starts_with("image/") => files.push((name, bytes)),
            Ok(text) => texts.push((name, text.to_owned())),
            // Files of pictures are never UTF-8.
            Err(_) if kind == "application/octet-stream" || matches!(name.as_str(), "image" | "image[]" | "mask") => {
                files.push((name, bytes));
            }
            Err(_) => return Err(malformed(format!("the value of {name} is not UTF-8; a file needs a filename"))),
        }
    }
    Ok(Fields::from_multipart(texts, files))
}

fn too_many() -> ApiError {
    malformed(format!("the body has more than {} parts", Fields::MOST_IN_FORM))
}

fn malformed(detail: String) -> ApiError {
    ApiError::MalformedForm(detail)
}

/// All bytes of a part. The reader has copied the whole body into one buffer. The content of a part comes as one piece
/// of this buffer, so it is not copied again.
async fn content(mut part: Field<'_>) -> Result<Bytes, multer::Error> {
    let mut whole = Bytes::new();
    while let Some(piece) = part.chunk().await? {
        whole = match whole.is_empty() {
            true => piece,
            false => [whole, piece].concat().into(),
        };
    }
    Ok(whole)
}
