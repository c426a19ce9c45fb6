//! Errors of the blob store.

use std::{error::Error, io, time::Duration};

use object_store::Error as E;

use crate::transient::is_transient;

pub(super) type Result<T> = std::result::Result<T, BlobError>;

/// A file could not be stored, read or erased.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("the disk is full")]
    StorageFull,
    #[error("not the path of a blob: {0}")]
    Path(#[from] object_store::path::Error),
    #[error("the blob store failed: {}", in_full(.0))]
    ObjectStore(#[source] E),
    #[error("the blob store failed: {0}")]
    Io(#[source] io::Error),
    #[error("the blob store has not answered within {} s", .within.as_secs_f32())]
    NoAnswer { within: Duration },
    /// At the start of the process: the bucket that the settings name cannot be used.
    #[error("{key}: {place} cannot be used: {source}")]
    Unusable { key: &'static str, place: String, source: Box<BlobError> },
}

impl BlobError {
    /// Whether a retry may succeed. A store that refuses a request or its credentials would refuse them again.
    pub fn may_pass(&self) -> bool {
        match self {
            BlobError::StorageFull | BlobError::Path(_) | BlobError::Unusable { .. } => false,
            BlobError::Io(_) | BlobError::NoAnswer { .. } => true,
            BlobError::ObjectStore(
                E::NotFound { .. }
                | E::InvalidPath { .. }
                | E::NotSupported { .. }
                | E::NotImplemented { .. }
                | E::PermissionDenied { .. }
                | E::Unauthenticated { .. }
                | E::UnknownConfigurationKey { .. },
            ) => false,
            // The other HTTP statuses appear only in the error's text.
            BlobError::ObjectStore(error) => {
                let text = error.to_string();
                let client = text.split("status code: ").nth(1).filter(|status| status.starts_with('4'));
                let is_refusal = client.is_some_and(|status| !status.starts_with("408") && !status.starts_with("429"));
                !is_refusal && !text.contains("without LOCATION")
            }
        }
    }

    /// Whether the file system failed for a transient reason, such as a lack of file descriptors.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            BlobError::Io(error) => is_transient(error),
            BlobError::ObjectStore(error) => causes(error).any(|cause| cause.downcast_ref().is_some_and(is_transient)),
            _ => false,
        }
    }

    /// Turns an error of the first requests to `place` into [`BlobError::Unusable`].
    pub(super) fn at(self, place: &str) -> BlobError {
        BlobError::Unusable { key: self.setting(), place: place.to_owned(), source: Box::new(self) }
    }

    /// The setting that is most likely wrong if the first request fails with this error.
    fn setting(&self) -> &'static str {
        let BlobError::ObjectStore(error) = self else { return "blobs.endpoint" };
        let text = error.to_string();
        let says = |word: &str| text.contains(word);
        if says("NoSuchBucket") || says("InvalidBucketName") {
            "blobs.url"
        } else if says("AuthorizationHeaderMalformed") || says("without LOCATION") {
            "blobs.region"
        } else if matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. }) {
            "blobs.access_key_id"
        } else {
            "blobs.endpoint"
        }
    }
}

/// The error with its root cause, such as a refused connection, which the error's own text leaves out.
fn in_full(error: &E) -> String {
    let text = error.to_string();
    let first = causes(error).last().map(ToString::to_string).unwrap_or_default();
    if text.contains(&first) { text } else { format!("{text}: {first}") }
}

/// The error, its cause, and so on.
fn causes(error: &E) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (**error).source())
}

/// Whether only the file is missing, not the bucket.
pub(super) fn is_absence(error: &E) -> bool {
    matches!(error, E::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}

impl From<E> for BlobError {
    fn from(error: E) -> Self {
        let full = causes(&error).any(|cause| cause.downcast_ref().is_some_and(is_full));
        if full { BlobError::StorageFull } else { BlobError::ObjectStore(error) }
    }
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { BlobError::StorageFull } else { BlobError::Io(error) }
    }
}

/// Whether the disk or the quota is full (ENOSPC, EDQUOT).
pub(in crate::ledger) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
