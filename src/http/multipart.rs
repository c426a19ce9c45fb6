//! `multipart/form-data` bodies: texts and files (RFC 7578).

use axum::body::Bytes;
use futures::FutureExt;
use multer::{Constraints, Field, Multipart};

use super::{disposition::Disposition, error::ApiError};
use crate::generation::Fields;
use memchr::memmem;

/// The fields of a body. A part with a file name or an `image/…` type is a file, and so are bytes that are no text where they
/// are said to be bytes or belong to a picture; any other part is a text.
///
/// # Errors
/// `malformed_form` where the body does not follow its boundary, a text is not UTF-8, a part has no name, or there are more
/// than [`Fields::MOST_IN_FORM`] parts, or a part's head is longer than [`LONGEST_HEAD`].
pub fn fields(boundary: &str, body: Bytes) -> Result<Fields, ApiError> {
    check_heads(boundary, &body)?;
    // The body is there as a whole, so that its reader never waits.
    read(boundary, body).now_or_never().unwrap_or_else(|| Err(malformed("the body does not end".into())))
}

/// Bytes of the largest head of a part. It is copied several times while it is read, unlike what it is the head of.
const LONGEST_HEAD: usize = 8 << 10;

fn check_heads(boundary: &str, body: &[u8]) -> Result<(), ApiError> {
    let delimiter = format!("--{boundary}");
    for at in memmem::find_iter(body, delimiter.as_bytes()) {
        let rest = &body[at + delimiter.len()..];
        if rest.get(..LONGEST_HEAD).is_some_and(|head| memmem::find(head, b"\r\n\r\n").is_none()) {
            return Err(malformed(format!("the head of a part is longer than {LONGEST_HEAD} bytes")));
        }
    }
    Ok(())
}

async fn read(boundary: &str, body: Bytes) -> Result<Fields, ApiError> {
    const MOST: usize = Fields::MOST_IN_FORM;
    let whole = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(body) });
    let mut parts = Multipart::with_constraints(whole, boundary, Constraints::new());
    let (mut texts, mut files, mut count) = (Vec::new(), Vec::new(), 0);
    while let Some(part) = parts.next_field().await.map_err(|error| malformed(error.to_string()))? {
        count += 1;
        if count > MOST {
            return Err(malformed(format!("the body has more than {MOST} parts")));
        }
        let Disposition { name, filename } = Disposition::of(part.headers());
        let Some(name) = name else {
            return Err(malformed("a part has no name: Content-Disposition must read form-data; name=\"…\"".into()));
        };
        let kind = part.content_type().map_or("", |kind| kind.essence_str()).to_owned();
        let bytes = content(part).await.map_err(|error| malformed(error.to_string()))?;
        match std::str::from_utf8(&bytes) {
            // Browsers send this for a choice of files where none was chosen.
            Ok("") if filename.as_deref() == Some("") => {}
            _ if filename.is_some() || kind.starts_with("image/") => files.push((name, bytes)),
            Ok(text) => texts.push((name, text.to_owned())),
            // The files of pictures are never UTF-8.
            Err(_) if kind == "application/octet-stream" || matches!(name.as_str(), "image" | "mask") => {
                files.push((name, bytes));
            }
            Err(_) => return Err(malformed(format!("the value of {name} is not UTF-8; a file needs a filename"))),
        }
    }
    Ok(Fields::from_multipart(texts, files))
}

fn malformed(detail: String) -> ApiError {
    ApiError::MalformedForm(detail)
}

/// All bytes of a part. It comes in one piece, as its body did, so that nothing is copied.
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
