//! Converts errors of the service, the ledger and the webhooks into [`ApiError`].

use super::{ApiError, invalid};
use crate::{
    ledger::{Refusal, StoreError},
    provenance::VerifyError,
    service::ServiceError,
    webhooks::RegistryError,
};

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> ApiError {
        match error {
            ServiceError::Invalid(invalid) => ApiError::Invalid(invalid),
            ServiceError::Catalogue(detail) => ApiError::CatalogueUnreadable(detail),
            ServiceError::MissingKey => ApiError::MissingKey,
            ServiceError::InvalidKey => ApiError::InvalidKey,
            ServiceError::KeyExpired => ApiError::KeyExpired,
            ServiceError::ScopeMissing(scope) => ApiError::ScopeMissing(scope),
            ServiceError::ModelForbidden { model, allowed } => ApiError::ModelForbidden { model, allowed },
            ServiceError::NoSuchKey => ApiError::NotFound("key"),
            ServiceError::KeyRevoked => ApiError::KeyRevoked,
            ServiceError::Refused { refusal, retry_after_s } => refused(refusal, retry_after_s),
            ServiceError::Overloaded { wait_s, bound_s, retry_after_s } => {
                ApiError::Overloaded { wait_s, bound_s, retry_after_s }
            }
            ServiceError::NotDead => ApiError::NotDead,
            ServiceError::NoRandomness(cause) => ApiError::Internal { cause },
            ServiceError::Draining => ApiError::Draining(None),
            ServiceError::NotFound => ApiError::NotFound("generation or file"),
            ServiceError::Blob(cause) => ApiError::ObjectStore { cause },
            ServiceError::Store(error) => error.into(),
        }
    }
}

impl From<VerifyError> for ApiError {
    fn from(error: VerifyError) -> ApiError {
        match error {
            VerifyError::Format => invalid("", "image_undecodable", format!("the file {error}")),
        }
    }
}

fn refused(refusal: Refusal, retry_after_s: u64) -> ApiError {
    match refusal {
        Refusal::QueueFull { queued } => ApiError::QueueFull { queued, retry_after_s },
        Refusal::TenantQueueFull { queued } => ApiError::TenantQueueFull { queued, retry_after_s },
        Refusal::LimitReached(exceeded) => ApiError::LimitReached(exceeded),
        Refusal::KeyEnded => ApiError::InvalidKey,
        Refusal::KeyReused => ApiError::IdempotencyKeyReused,
        Refusal::IdTaken => ApiError::IdConflict,
        Refusal::NotFinished => ApiError::NotFinished,
        Refusal::NotSucceeded => ApiError::NotSucceeded,
        Refusal::StarsFull { most } => ApiError::StarsFull { most },
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Refused(refusal) => refused(refusal, 10),
            StoreError::StorageFull => ApiError::StorageFull,
            StoreError::TimedOut
            | StoreError::Database(_)
            | StoreError::Io(_)
            | StoreError::Locked { .. }
            | StoreError::Migration(_)
            | StoreError::SchemaTooOld { .. } => ApiError::Database { cause: error.to_string() },
            StoreError::Corrupt { .. } => ApiError::Internal { cause: error.to_string() },
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> ApiError {
        match error {
            RegistryError::Invalid(invalid) => ApiError::Invalid(invalid),
            RegistryError::NotFound => ApiError::NotFound("such webhook endpoint or delivery"),
            RegistryError::Full { most } => ApiError::EndpointsFull { most },
            RegistryError::Entropy(cause) => ApiError::Internal { cause },
            RegistryError::Store(error) => error.into(),
        }
    }
}
