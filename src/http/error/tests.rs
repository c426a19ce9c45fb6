//! Tests of the table of errors.

use std::collections::BTreeSet;

use super::*;
use crate::generation::{FieldError, GenerationId, Problem, RateLimit, WorkKind};

/// At least one error for each code.
fn all() -> Vec<ApiError> {
    let (id, text) = (GenerationId::new(), || "text".to_owned());
    let at = Location { kind: WorkKind::Draw, id };
    let cold = || Unready::Model { name: text(), state: "cold" };
    let failed = |code: &str| ApiError::Failed { at, code: code.to_owned(), message: text() };
    vec![
        ApiError::MalformedJson(text()),
        ApiError::MalformedForm(text()),
        ApiError::BodyIncomplete,
        ApiError::BadHeader { name: "Prefer", detail: text() },
        ApiError::SignatureInvalid,
        ApiError::ImageExpired,
        ApiError::UrlExpired,
        ApiError::KeyExpired,
        ApiError::ScopeMissing(Scope::Admin),
        ApiError::ModelForbidden { model: text(), allowed: vec![text()] },
        ApiError::MissingToken,
        ApiError::InvalidToken,
        ApiError::KeyRevoked,
        ApiError::LimitReached(Exceeded::Rate { limit: RateLimit { requests: 1, window_s: 2 }, reset_s: 1 }),
        ApiError::LimitReached(Exceeded::Quota { cost: 2.0, spent: 0.5, quota: 1, reset_s: 1 }),
        ApiError::IdempotencyKeyInvalid("is text"),
        ApiError::MissingKey,
        ApiError::InvalidKey,
        ApiError::ForeignOrigin { origin: text() },
        ApiError::HostNotAllowed { host: text(), setting: "http.allowed_hosts" },
        ApiError::IdConflict,
        ApiError::NotDead,
        ApiError::IdempotencyKeyReused,
        ApiError::TenantQueueFull { queued: 1, retry_after_s: 1 },
        ApiError::Overloaded { wait_s: 2, bound_s: 1, retry_after_s: 1 },
        ApiError::NotFound("generation"),
        ApiError::NoSuchPath,
        ApiError::MethodNotAllowed,
        ApiError::NotAcceptable(text()),
        ApiError::MultipleImages("image/png"),
        ApiError::RequestTimeout,
        ApiError::NotFinished,
        ApiError::NotSucceeded,
        ApiError::StarsFull { most: 1 },
        ApiError::Canceled(at),
        ApiError::EndpointsFull { most: 1 },
        ApiError::BodyTooLarge { limit: 1 },
        ApiError::UnsupportedMediaType(text()),
        ApiError::RangeNotSatisfiable { length: 1 },
        invalid("/steps", "out_of_range", text()),
        invalid("/color", "unknown_field", text()),
        invalid("/model", "unknown_model", text()),
        invalid("/loras/0/name", "unknown_lora", text()),
        invalid("/loras/0/name", FILE_CHANGED, text()),
        invalid("/webhook/url", "webhook_url_forbidden", text()),
        invalid("/prompt", FieldError::PROMPT_BLOCKED, text()),
        failed("run_timeout"),
        failed("out_of_memory"),
        failed("worker_crashed"),
        failed("device_lost"),
        failed("not_finite"),
        failed(Problem::CONTENT_FILTERED),
        failed("anything else"),
        ApiError::Internal { cause: text() },
        ApiError::ObjectStore { cause: text() },
        ApiError::BodiesFull { limit: 1 },
        ApiError::QueueFull { queued: 1, retry_after_s: 1 },
        ApiError::AnswersUnread,
        ApiError::Expired(at),
        ApiError::Draining(None),
        ApiError::Unready(vec![cold()]),
        ApiError::Unready(vec![cold(), Unready::Drained]),
        ApiError::StorageFull,
        ApiError::Database { cause: text() },
        ApiError::WaitTimeout(at),
        ApiError::CatalogueUnreadable(text()),
        failed("model_unavailable"),
    ]
}

#[test]
fn the_contract_lists_every_code_and_no_other() {
    let contract: serde_json::Value = serde_yaml_ng::from_str(crate::http::OPENAPI_YAML).unwrap();
    let listed = contract["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    let listed: BTreeSet<_> = listed.iter().map(|code| code.as_str().unwrap()).collect();
    let used: BTreeSet<_> = all().iter().map(|error| error.row().1).collect();
    assert_eq!(used, listed);
}

#[test]
fn every_temporary_refusal_has_retry_after() {
    for error in all() {
        let (text, (status, ..)) = (error.to_string(), error.row());
        let response = error.into_response();
        assert_eq!(
            response.headers().contains_key(header::RETRY_AFTER),
            status == 503 || status == 429 || text.contains("goes on"),
            "{text}"
        );
        let kind = &response.extensions().get::<ProblemDocument>().unwrap().kind;
        assert_eq!(kind.ends_with("#temporary-reduced-capacity"), status == 503, "{text}");
        assert_eq!(kind.ends_with("#quota-exceeded"), status == 429, "{text}");
    }
}

#[test]
fn an_answer_to_a_request_without_a_key_names_the_authentication_scheme() {
    for error in all() {
        let (text, (status, ..)) = (error.to_string(), error.row());
        let challenged = error.into_response().headers().contains_key(header::WWW_AUTHENTICATE);
        assert_eq!(challenged, status == 401, "{text}");
    }
}

#[test]
fn no_conflict_is_retried_by_itself() {
    for error in all().into_iter().filter(|error| error.row().0 == 409) {
        let text = error.to_string();
        assert_eq!(error.into_response().headers()["x-should-retry"], "false", "{text}");
    }
}

#[test]
fn jitter_stays_within_a_fifth() {
    for _ in 0..100 {
        assert!((80..=120).contains(&jittered(100)));
        assert!(jittered(0) == 1);
    }
}
