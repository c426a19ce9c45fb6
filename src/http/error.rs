//! The one table of errors: the status, the code, the title and the problem document (RFC 9457) of each.

mod from;
mod problem;
#[cfg(test)]
mod tests;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::url::Location;
pub use problem::ProblemDocument;

use crate::{
    generation::{Exceeded, FieldError, Invalid, Problem, Scope, cut},
    jitter,
    service::Unready,
};

/// The statuses other than 200 of answers that are not errors.
pub mod success {
    use axum::http::StatusCode;

    /// The request created something, such as a key.
    pub const CREATED: StatusCode = StatusCode::CREATED;
    /// The generation or its cancellation is in progress.
    pub const ACCEPTED: StatusCode = StatusCode::ACCEPTED;
    /// There is nothing to show, or no further event.
    pub const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;
    /// One range of a file.
    pub const PARTIAL: StatusCode = StatusCode::PARTIAL_CONTENT;
    /// The client already has the newest state.
    pub const NOT_MODIFIED: StatusCode = StatusCode::NOT_MODIFIED;
}

/// Every error that can answer a request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    MalformedJson(String),
    #[error("{0}")]
    MalformedForm(String),
    #[error("the body ended before its announced length")]
    BodyIncomplete,
    #[error("the header {name} {detail}")]
    BadHeader { name: &'static str, detail: String },
    #[error("the signature of this URL is not valid for this path")]
    SignatureInvalid,
    #[error("the signed URL has expired; read the generation for a new one")]
    ImageExpired,
    #[error("the signed URL of the events has expired; the generation, or the list of generations, has a new one")]
    UrlExpired,
    #[error("the idempotency key {0}")]
    IdempotencyKeyInvalid(&'static str),
    #[error("this server requires an API key; send it as Authorization: Bearer ltd_…")]
    MissingKey,
    #[error("unknown API key in Authorization")]
    InvalidKey,
    #[error("this API key has expired")]
    KeyExpired,
    #[error(
        "this API key does not have the scope {}; GET needs read, other methods need generate, and the operator's \
         routes need admin",
        .0.as_str()
    )]
    ScopeMissing(Scope),
    #[error("this API key may not use the model {model:?}, only {}", .allowed.join(", "))]
    ModelForbidden { model: String, allowed: Vec<String> },
    #[error(
        "this listener requires the operator's token: Authorization: Bearer TOKEN, with operator.token of the settings \
         or the contents of the file operator.token in data_dir"
    )]
    MissingToken,
    #[error("Authorization contains neither the operator's token nor an API key with the scope admin")]
    InvalidToken,
    /// A page of another site sent the request.
    #[error(
        "the request comes from a page of {origin}; only this server's own pages may make changes, on the public \
         listener also pages of the origins in http.cors_origins"
    )]
    ForeignOrigin { origin: String },
    #[error("{host} is not a name of this server; its operator can add it to {setting}")]
    HostNotAllowed { host: String, setting: &'static str },
    #[error("there is no {0} here")]
    NotFound(&'static str),
    #[error("there is no such path; POST /v1/images creates pictures, and /openapi.yaml lists all paths")]
    NoSuchPath,
    #[error("this path does not support the request's method; the header Allow lists the supported methods")]
    MethodNotAllowed,
    #[error("not acceptable: this request can be answered with {0}")]
    NotAcceptable(String),
    #[error("an answer of type {0} holds one file, but n is greater than 1; ask for application/json")]
    MultipleImages(&'static str),
    #[error("the body did not arrive in time")]
    RequestTimeout,
    #[error("the generation is not finished; cancel it first")]
    NotFinished,
    #[error("only a generation that succeeded can have a star")]
    NotSucceeded,
    #[error("{most} of your generations have stars, which is the limit (retention.max_starred); take one away first")]
    StarsFull { most: usize },
    #[error("the generation was canceled before it had a picture")]
    Canceled(Location),
    #[error("the id belongs to another generation; choose a new one")]
    IdConflict,
    #[error("the generation was not given up after crashes, so it cannot be queued again")]
    NotDead,
    #[error("the key was revoked, which cannot be undone; create a new one")]
    KeyRevoked,
    #[error("at most {most} webhook endpoints can be registered; delete one first")]
    EndpointsFull { most: usize },
    #[error("the body must have at most {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("{0}")]
    UnsupportedMediaType(String),
    #[error("the file has {length} bytes")]
    RangeNotSatisfiable { length: usize },
    #[error(transparent)]
    Invalid(Invalid),
    #[error("the idempotency key was already used for a different request; send this request with a new key")]
    IdempotencyKeyReused,
    /// The generation ended in state `failed`.
    #[error("{message}")]
    Failed { at: Location, code: String, message: String },
    #[error("{0}")]
    CatalogueUnreadable(String),
    #[error("the server failed; its log has the cause under the request's id")]
    Internal { cause: String },
    #[error("a picture cannot be stored or read")]
    ObjectStore { cause: String },
    #[error(transparent)]
    LimitReached(Exceeded),
    #[error("{queued} generations of your tenant are queued already, which is the tenant's limit")]
    TenantQueueFull { queued: usize, retry_after_s: u64 },
    #[error("request bodies in progress use all of the {limit} bytes allowed for them together; retry soon")]
    BodiesFull { limit: usize },
    #[error("the queue is full: {queued} generations are queued already")]
    QueueFull { queued: usize, retry_after_s: u64 },
    #[error("the generation would wait about {wait_s} s, more than the allowed {bound_s} s")]
    Overloaded { wait_s: u64, bound_s: u64, retry_after_s: u64 },
    #[error("earlier answers were not read in time, by this client or by all clients")]
    AnswersUnread,
    #[error("the generation was not started in time")]
    Expired(Location),
    /// The generation, if there is one, is kept and continues after the restart, or when the worker takes work again.
    #[error("the server accepts no work: it is stopping, or its operator has drained it")]
    Draining(Option<Location>),
    #[error("the server is not ready: {}", texts(.0).join("; "))]
    Unready(Vec<Unready>),
    #[error("the disk is full")]
    StorageFull,
    #[error("the database does not answer")]
    Database { cause: String },
    #[error("the generation was not finished in time; it goes on at {}", .0.path())]
    WaitTimeout(Location),
}

/// Status, code and title of an error.
type Row = (StatusCode, &'static str, &'static str);

impl ApiError {
    fn row(&self) -> Row {
        use StatusCode as S;
        match self {
            ApiError::MalformedJson(_) => (S::BAD_REQUEST, "malformed_json", "The body is not valid JSON"),
            ApiError::MalformedForm(_) => (S::BAD_REQUEST, "malformed_form", "The body is not a valid form"),
            ApiError::BodyIncomplete => (S::BAD_REQUEST, "body_incomplete", "The body is incomplete"),
            ApiError::BadHeader { .. } => (S::BAD_REQUEST, "bad_header", "A header cannot be understood"),
            ApiError::SignatureInvalid => (S::FORBIDDEN, "signature_invalid", "The signature is not valid"),
            ApiError::ImageExpired => (S::GONE, "image_expired", "The URL has expired"),
            ApiError::UrlExpired => (S::GONE, "url_expired", "The URL has expired"),
            ApiError::IdempotencyKeyInvalid(_) => {
                (S::BAD_REQUEST, "idempotency_key_invalid", "The idempotency key cannot be understood")
            }
            ApiError::MissingKey => (S::UNAUTHORIZED, "missing_key", "An API key is required"),
            ApiError::InvalidKey => (S::UNAUTHORIZED, "invalid_key", "The key is not valid"),
            ApiError::KeyExpired => (S::UNAUTHORIZED, "key_expired", "The key has expired"),
            ApiError::ScopeMissing(_) => (S::FORBIDDEN, "scope_missing", "The key may not do this"),
            ApiError::ModelForbidden { .. } => (S::FORBIDDEN, "model_forbidden", "The key may not use this model"),
            ApiError::MissingToken => (S::UNAUTHORIZED, "missing_token", "The operator's token is required"),
            ApiError::InvalidToken => (S::UNAUTHORIZED, "invalid_token", "The operator's token is not valid"),
            ApiError::ForeignOrigin { .. } => (S::FORBIDDEN, "foreign_origin", "Cross-site request refused"),
            ApiError::HostNotAllowed { .. } => (S::MISDIRECTED_REQUEST, "host_not_allowed", "Unknown host name"),
            ApiError::NotFound(_) | ApiError::NoSuchPath => (S::NOT_FOUND, "not_found", "Not found"),
            ApiError::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            ApiError::NotAcceptable(_) => (S::NOT_ACCEPTABLE, "not_acceptable", "Not acceptable"),
            ApiError::MultipleImages(_) => (S::NOT_ACCEPTABLE, "multiple_images", "More than one file"),
            ApiError::RequestTimeout => (S::REQUEST_TIMEOUT, "request_timeout", "The request is too slow"),
            ApiError::NotFinished => (S::CONFLICT, "generation_not_finished", "The generation is not finished"),
            ApiError::NotSucceeded => (S::CONFLICT, "generation_not_succeeded", "The generation has no files"),
            ApiError::StarsFull { .. } => (S::CONFLICT, "stars_full", "Too many stars"),
            ApiError::Canceled(_) => (S::CONFLICT, "generation_canceled", "The generation was canceled"),
            ApiError::IdConflict => (S::CONFLICT, "id_conflict", "The id is taken"),
            ApiError::NotDead => (S::CONFLICT, "generation_not_dead", "The generation was not given up"),
            ApiError::KeyRevoked => (S::CONFLICT, "key_revoked", "The key was revoked"),
            ApiError::EndpointsFull { .. } => (S::CONFLICT, "webhook_endpoints_full", "Too many webhook endpoints"),
            ApiError::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            ApiError::UnsupportedMediaType(_) => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body's type is not supported")
            }
            ApiError::RangeNotSatisfiable { .. } => {
                (S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "The range is outside of the file")
            }
            ApiError::Invalid(invalid) if is_change(&invalid.errors) => {
                (S::SERVICE_UNAVAILABLE, FILE_CHANGED, "A file has changed")
            }
            ApiError::Invalid(invalid) => {
                (S::UNPROCESSABLE_ENTITY, invalid_code(&invalid.errors), "The request is not valid")
            }
            ApiError::IdempotencyKeyReused => {
                (S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The idempotency key was used before")
            }
            ApiError::LimitReached(Exceeded::Rate { .. }) => {
                (S::TOO_MANY_REQUESTS, "rate_limited", "Too many generations in a short time")
            }
            ApiError::LimitReached(Exceeded::Quota { .. }) => {
                (S::TOO_MANY_REQUESTS, "quota_exceeded", "The quota of the day is used up")
            }
            ApiError::TenantQueueFull { .. } => {
                (S::TOO_MANY_REQUESTS, "tenant_queue_full", "Your tenant has too many queued generations")
            }
            ApiError::Failed { code, .. } => failed_row(code),
            ApiError::CatalogueUnreadable(_) => {
                (S::INTERNAL_SERVER_ERROR, "catalogue_unreadable", "The folders of models cannot be read")
            }
            ApiError::Internal { .. } => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            ApiError::ObjectStore { .. } => (S::BAD_GATEWAY, "object_store_error", "The picture store failed"),
            ApiError::BodiesFull { .. } => (S::SERVICE_UNAVAILABLE, "bodies_full", "Too many large requests"),
            ApiError::QueueFull { .. } => (S::SERVICE_UNAVAILABLE, "queue_full", "The queue is full"),
            ApiError::Overloaded { .. } => (S::SERVICE_UNAVAILABLE, "overloaded", "The wait would be too long"),
            ApiError::AnswersUnread => (S::SERVICE_UNAVAILABLE, "overloaded", "Answers are not read"),
            ApiError::Expired(_) => (S::SERVICE_UNAVAILABLE, "overloaded", "The generation was not started in time"),
            ApiError::Draining(_) => (S::SERVICE_UNAVAILABLE, "draining", "The server takes no work"),
            ApiError::Unready(reasons) => (S::SERVICE_UNAVAILABLE, unready_code(reasons), "The server is not ready"),
            ApiError::StorageFull => (S::SERVICE_UNAVAILABLE, "storage_full", "The disk is full"),
            ApiError::Database { .. } => {
                (S::SERVICE_UNAVAILABLE, "database_unavailable", "The database does not answer")
            }
            ApiError::WaitTimeout(_) => (S::GATEWAY_TIMEOUT, "wait_timeout", "Not finished in time"),
        }
    }

    /// Seconds after which the same request may succeed.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            ApiError::QueueFull { retry_after_s, .. }
            | ApiError::TenantQueueFull { retry_after_s, .. }
            | ApiError::Overloaded { retry_after_s, .. } => Some(jittered(*retry_after_s)),
            // Not jittered: an earlier try would be refused.
            ApiError::LimitReached(exceeded) => Some(exceeded.reset_s()),
            ApiError::Draining(_)
            | ApiError::Unready(_)
            | ApiError::Database { .. }
            | ApiError::BodiesFull { .. }
            | ApiError::AnswersUnread => Some(jittered(5)),
            ApiError::Expired(_) | ApiError::StorageFull => Some(jittered(30)),
            ApiError::WaitTimeout(_) => Some(1),
            // By default the folders are listed every 5 s and read when two listings agree.
            ApiError::Invalid(invalid) if is_change(&invalid.errors) => Some(jittered(10)),
            _ => None,
        }
    }

    /// The generation that the error is about. Its path becomes the header `Location`.
    fn generation(&self) -> Option<Location> {
        match self {
            ApiError::Canceled(at) | ApiError::Expired(at) | ApiError::WaitTimeout(at) => Some(*at),
            ApiError::Failed { at, .. } => Some(*at),
            ApiError::Draining(at) => *at,
            _ => None,
        }
    }

    /// The cause, which only the log shows.
    fn cause(&self) -> Option<String> {
        match self {
            ApiError::Internal { cause } | ApiError::ObjectStore { cause } | ApiError::Database { cause } => {
                Some(cause.clone())
            }
            _ => None,
        }
    }

    /// The problem document, without the path and the id of the request, which only the outermost layer knows.
    pub fn problem(&self) -> ProblemDocument {
        let (status, code, title) = self.row();
        let kind = match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity".to_owned()
            }
            StatusCode::TOO_MANY_REQUESTS => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned()
            }
            _ => format!("https://latentd.dev/problems/{code}"),
        };
        let violated_policies = match self {
            ApiError::LimitReached(exceeded) => vec![exceeded.policy()],
            _ => Vec::new(),
        };
        let (errors, reasons) = match self {
            ApiError::Invalid(invalid) => (invalid.errors.clone(), Vec::new()),
            ApiError::Unready(reasons) => (Vec::new(), texts(reasons)),
            _ => Default::default(),
        };
        ProblemDocument {
            kind,
            title,
            status: status.as_u16(),
            // The detail may quote the request, so its length is bounded.
            detail: cut(&self.to_string(), 500),
            instance: String::new(),
            code,
            request_id: String::new(),
            errors,
            reasons,
            retry_after_s: self.retry_after_s(),
            violated_policies,
            cause: self.cause(),
        }
    }
}

/// Code for a file that the request names and that has changed since it was listed.
const FILE_CHANGED: &str = "file_changed";

/// Whether the same request may be valid soon, because all of its errors are changed files.
fn is_change(errors: &[FieldError]) -> bool {
    !errors.is_empty() && errors.iter().all(|error| error.code == FILE_CHANGED)
}

/// The code of an invalid request, so that clients need not search its list of errors. A single error `unknown_model`
/// or `model_unavailable` decides the code. Other errors decide the code only if all of them have the same code from
/// the list below; otherwise the code is `validation_failed`.
fn invalid_code(errors: &[FieldError]) -> &'static str {
    let all = |code| errors.iter().all(|error| error.code == code || error.code == FieldError::MORE);
    if errors.iter().any(|error| error.code == "unknown_model") {
        "unknown_model"
    } else if errors.iter().any(|error| error.code == "model_unavailable") {
        "model_unavailable"
    } else if all("unknown_lora") {
        "unknown_lora"
    } else if all("webhook_url_forbidden") {
        "webhook_url_forbidden"
    } else if all(FieldError::PROMPT_BLOCKED) {
        FieldError::PROMPT_BLOCKED
    } else if all("unknown_field") {
        "unknown_field"
    } else {
        "validation_failed"
    }
}

/// The code of the most significant reason, which is the smallest one in the order of [`Unready`].
fn unready_code(reasons: &[Unready]) -> &'static str {
    match reasons.iter().min() {
        Some(Unready::Draining | Unready::DevicesFailed) => "draining",
        Some(Unready::Drained) => "drained",
        Some(Unready::SchemaTooOld | Unready::Store(_)) => "database_unavailable",
        Some(Unready::Model { .. }) | None => "starting",
    }
}

fn texts(reasons: &[Unready]) -> Vec<String> {
    reasons.iter().map(Unready::to_string).collect()
}

/// Status, code and title by the code of the problem that a run failed with.
fn failed_row(code: &str) -> Row {
    match code {
        "run_timeout" => (StatusCode::GATEWAY_TIMEOUT, "run_timeout", "The generation took too long"),
        "model_unavailable" => (StatusCode::INTERNAL_SERVER_ERROR, "model_unavailable", "The model cannot be loaded"),
        "out_of_memory" => (StatusCode::INTERNAL_SERVER_ERROR, "out_of_memory", "Out of memory"),
        "worker_crashed" => (StatusCode::INTERNAL_SERVER_ERROR, "worker_crashed", "The worker crashed"),
        "device_lost" => (StatusCode::INTERNAL_SERVER_ERROR, "device_lost", "The device was lost"),
        Problem::CONTENT_FILTERED => {
            (StatusCode::UNPROCESSABLE_ENTITY, Problem::CONTENT_FILTERED, "The pictures are blocked")
        }
        "not_finite" => (StatusCode::INTERNAL_SERVER_ERROR, "not_finite", "The picture is not finite"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The generation failed"),
    }
}

/// Varies the seconds by ± 20 %, so that clients refused together do not return together. The result is at least 1.
fn jittered(seconds: u64) -> u64 {
    (seconds as f64 * jitter::between(0.8, 1.2)).round().max(1.0) as u64
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let mut response = self.row().0.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = problem.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(Ok(location)) = self.generation().map(|at| at.path().try_into()) {
            headers.insert(header::LOCATION, location);
        }
        match self {
            ApiError::RangeNotSatisfiable { length } => {
                let range = HeaderValue::try_from(format!("bytes */{length}")).expect("digits are valid in a header");
                headers.insert(header::CONTENT_RANGE, range);
            }
            // Widely used SDKs retry every 409 unless this header forbids it.
            ApiError::NotFinished
            | ApiError::NotSucceeded
            | ApiError::StarsFull { .. }
            | ApiError::Canceled(_)
            | ApiError::IdConflict
            | ApiError::NotDead
            | ApiError::KeyRevoked
            | ApiError::EndpointsFull { .. } => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            ApiError::MissingKey | ApiError::MissingToken => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"latentd\""));
            }
            ApiError::InvalidKey | ApiError::KeyExpired | ApiError::InvalidToken => {
                let challenge = HeaderValue::from_static("Bearer realm=\"latentd\", error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            _ => {}
        }
        response.extensions_mut().insert(problem);
        response
    }
}

/// The answer after a panic in a handler. The panic hook has already logged the panic.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::Internal { cause: "a handler panicked".into() }.into_response()
}

/// Replaces 422 by 400, for protocols that answer every invalid request with 400.
pub fn invalid_as_bad_request(response: &mut Response) {
    if response.status() == StatusCode::UNPROCESSABLE_ENTITY {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
}

/// An error of one field, or of the whole body if the pointer is empty.
pub fn invalid(pointer: &str, code: &'static str, detail: impl Into<String>) -> ApiError {
    let error = FieldError { pointer: pointer.to_owned(), code, detail: cut(&detail.into(), 500) };
    ApiError::Invalid(Invalid { errors: vec![error] })
}
