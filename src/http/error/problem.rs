//! The problem document of an error (RFC 9457).

use serde::Serialize;

use crate::generation::FieldError;

/// The body of an error. The extensions of the response carry this document to the outermost layer, which knows the
/// request and writes the body.
#[derive(Clone, Debug, Serialize)]
pub struct ProblemDocument {
    /// URI of the problem's type.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: &'static str,
    pub status: u16,
    /// What went wrong in this request.
    pub detail: String,
    /// Path of the request.
    pub instance: String,
    /// Code for programs; `openapi.yaml` lists all codes.
    pub code: &'static str,
    pub request_id: String,
    /// Invalid fields of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Why the server is not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Names of the policies in `RateLimit-Policy` that refused the request.
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    pub violated_policies: Vec<&'static str>,
    /// What the server's log says in addition; answers do not contain it.
    #[serde(skip)]
    pub cause: Option<String>,
}
