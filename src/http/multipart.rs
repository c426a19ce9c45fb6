//! `multipart/form-data` bodies: texts and files (RFC 7578).

use axum::body::Bytes;
use futures::FutureExt;
use multer::{Constraints, Field, Multipart};

use super::error::ApiError;
use crate::generation::Fields;
use memchr::memmem;

/// The fields of a body. A part with a file name or an `image/…` type is a file, any other a text.
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
    let (mut texts, mut files) = (Vec::new(), Vec::new());
    while let Some(part) = parts.next_field().await.map_err(|error| malformed(error.to_string()))? {
        if texts.len() + files.len() == MOST {
            return Err(malformed(format!("the body has more than {MOST} parts")));
        }
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(malformed("a part has no name".into()));
        };
        let picture = part.content_type().is_some_and(|kind| kind.type_() == "image");
        let file = part.file_name().is_some() || picture;
        let bytes = content(part).await.map_err(|error| malformed(error.to_string()))?;
        if file {
            files.push((name, bytes));
        } else {
            let text = std::str::from_utf8(&bytes).map(str::to_owned);
            texts.push((name.clone(), text.map_err(|_| malformed(format!("the value of {name} is not UTF-8")))?));
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
