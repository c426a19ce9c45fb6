//! How a protocol writes its errors. All protocols share the code that accepts requests, waits for generations and
//! reads files.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::error::ProblemDocument;

/// How a protocol writes its errors. All other answers are written by the handlers of the protocol, because protocols
/// need different data for them: an answer of the native protocol shows a generation, answers of other protocols
/// contain the files of the pictures.
pub trait Face: Send + Sync + 'static {
    /// Writes the body of an error.
    fn render_error(&self, problem: &ProblemDocument) -> Document;

    /// Changes the status and the headers of an error. Before the change, they have the values of the native protocol.
    fn adapt_error(&self, _problem: &ProblemDocument, _response: &mut Response) {}
}

/// The first errors of a request as one text, for protocols whose errors contain no list.
pub fn message(problem: &ProblemDocument) -> String {
    const SHOWN: usize = 3;
    let details: Vec<&str> = problem.errors.iter().take(SHOWN).map(|error| error.detail.as_str()).collect();
    match problem.errors.len() {
        0 => problem.detail.clone(),
        all if all <= SHOWN => details.join("; "),
        all => format!("{}; and {} more errors", details.join("; "), all - SHOWN),
    }
}

/// The body of an answer, with its media type.
#[derive(Clone, Debug)]
pub struct Document {
    pub media_type: &'static str,
    pub body: Vec<u8>,
}

impl Document {
    pub fn of(media_type: &'static str, object: &impl Serialize) -> Document {
        let body = serde_json::to_vec(object).expect("the keys of all documents are strings");
        Document { media_type, body }
    }

    /// Replaces the body of `response`.
    pub fn write(self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        *response.body_mut() = Body::from(self.body);
    }
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, self.media_type)], self.body).into_response()
    }
}

/// The protocol of `openapi.yaml`.
#[derive(Clone, Copy, Debug)]
pub struct Native;

impl Face for Native {
    /// Writes a problem document (RFC 9457).
    fn render_error(&self, problem: &ProblemDocument) -> Document {
        Document::of("application/problem+json", problem)
    }
}
