//! Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Value, json};

use crate::{
    generation::{FieldError, Problem},
    http::{
        error::{ProblemDocument, invalid_as_bad_request},
        face::{Document, Face, message},
    },
};

/// OpenAI's protocol.
#[derive(Clone, Copy, Debug)]
pub struct OpenAi;

/// The longest `Retry-After` that OpenAI's SDKs obey, in seconds. If the server sends a longer time, they give up.
const MAX_RETRY_AFTER_S: u64 = 120;

impl Face for OpenAi {
    fn render_error(&self, problem: &ProblemDocument) -> Document {
        Document::of("application/json", &json!({ "error": error(problem) }))
    }

    fn adapt_error(&self, problem: &ProblemDocument, response: &mut Response) {
        invalid_as_bad_request(response);
        let headers = response.headers_mut();
        if let Some(seconds) = problem.retry_after_s.filter(|seconds| *seconds > MAX_RETRY_AFTER_S) {
            tracing::debug!(seconds, "Retry-After is shortened for a client that would give up");
            headers.insert(header::RETRY_AFTER, HeaderValue::from(MAX_RETRY_AFTER_S));
        }
        if !may_succeed_later(problem) {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
    }
}

/// The object `error` of an answer or of an event.
pub fn error(problem: &ProblemDocument) -> Value {
    let first = problem.errors.first();
    json!({
        "message": message(problem),
        "type": if problem.code == Problem::CONTENT_FILTERED { MODERATION } else { kind(problem.status) },
        "param": first.and_then(param),
        "code": code(first.map_or(problem.code, |error| error.code)),
    })
}

/// OpenAI's type of the error for pictures that its moderation blocks.
const MODERATION: &str = "image_generation_user_error";

fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// OpenAI's name of the code; the code itself if OpenAI has no name for it.
fn code(code: &'static str) -> &'static str {
    match code {
        "unknown_model" => "model_not_found",
        "unknown_field" => "unknown_parameter",
        "required" => "missing_required_parameter",
        "invalid_key" | "missing_key" | "key_expired" => "invalid_api_key",
        "rate_limited" => "rate_limit_exceeded",
        "quota_exceeded" => "insufficient_quota",
        Problem::CONTENT_FILTERED => "moderation_blocked",
        FieldError::PROMPT_BLOCKED => "content_policy_violation",
        other => other,
    }
}

/// The name of the faulty field, such as `size` or `loras.0.name`, as the client has sent it.
fn param(error: &FieldError) -> Option<String> {
    let path = error.pointer.strip_prefix('/')?;
    Some(match path {
        "output/format" => "output_format".to_owned(),
        "output/quality" => "output_compression".to_owned(),
        "previews" => "partial_images".to_owned(),
        path => path.replace('/', ".").replace("~1", "/").replace("~0", "~"),
    })
}

/// Whether the same request may succeed if it is sent again. OpenAI's SDKs repeat requests after a 408, 409, 429 or any
/// status above 499, unless the answer forbids it.
fn may_succeed_later(problem: &ProblemDocument) -> bool {
    match problem.status {
        // The next day has a new quota, but no SDK waits that long.
        429 => problem.code != "quota_exceeded",
        408 => true,
        500.. => !matches!(problem.code, "out_of_memory" | "model_unavailable" | "run_timeout" | "not_finite"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;
    use crate::{
        generation::{GenerationId, WorkKind},
        http::url::Location,
    };

    fn location() -> Location {
        Location { kind: WorkKind::Draw, id: GenerationId::new() }
    }
    use crate::http::error::{ApiError, invalid};

    fn adapted(error: ApiError) -> (u16, String, String) {
        let problem = error.problem();
        let mut response = error.into_response();
        OpenAi.adapt_error(&problem, &mut response);
        let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        (response.status().as_u16(), header("retry-after"), header("x-should-retry"))
    }

    #[test]
    fn an_error_has_the_type_and_the_code_of_openai() {
        for (pointer, code, param, named) in [
            ("/size", "out_of_range", json!("size"), "out_of_range"),
            ("/loras/0/name", "unknown_lora", json!("loras.0.name"), "unknown_lora"),
            ("/output/quality", "out_of_range", json!("output_compression"), "out_of_range"),
            ("/model", "unknown_model", json!("model"), "model_not_found"),
            ("/a~1b", "unknown_field", json!("a/b"), "unknown_parameter"),
            ("", "wrong_type", json!(null), "wrong_type"),
        ] {
            let error = error(&invalid(pointer, code, "is wrong").problem());
            let expected =
                json!({"message": "is wrong", "type": "invalid_request_error", "param": param, "code": named});
            assert_eq!(error, expected, "{pointer}");
        }
        let mut many = invalid("/a", "required", "a is required").problem();
        many.errors = (0..5).map(|n| FieldError::at(&["f"], "required", &format!("lacks {n}"))).collect();
        assert_eq!(error(&many)["message"], "f lacks 0; f lacks 1; f lacks 2; and 2 more errors");
        let prompt = error(&invalid("/prompt", FieldError::PROMPT_BLOCKED, "is refused").problem());
        let named = json!("content_policy_violation");
        assert_eq!((&prompt["type"], &prompt["code"]), (&json!("invalid_request_error"), &named));
        let (code, message) = (Problem::CONTENT_FILTERED.to_owned(), "flagged".to_owned());
        let blocked = ApiError::Failed { at: location(), code, message };
        let answer = error(&blocked.problem());
        assert_eq!((&answer["type"], &answer["code"]), (&json!(MODERATION), &json!("moderation_blocked")));
        assert_eq!(adapted(blocked).0, 400);
        let key = error(&ApiError::InvalidKey.problem());
        assert_eq!((&key["type"], &key["code"]), (&json!("authentication_error"), &json!("invalid_api_key")));
    }

    #[test]
    fn sdks_repeat_only_what_may_succeed() {
        let forbidden = |status| (status, String::new(), "false".to_owned());
        assert_eq!(adapted(invalid("/size", "out_of_range", "is wrong")), forbidden(400));
        assert_eq!(adapted(ApiError::InvalidKey), forbidden(401));
        assert_eq!(adapted(ApiError::Canceled(location())), forbidden(409));
        let (status, after, retry) = adapted(ApiError::TenantQueueFull { queued: 1, retry_after_s: 4000 });
        assert_eq!((status, after.as_str(), retry.as_str()), (429, "120", ""));
        let (status, after, retry) = adapted(ApiError::QueueFull { queued: 1, retry_after_s: 1 });
        assert_eq!((status, after.as_str(), retry.as_str()), (503, "1", ""));
    }
}
