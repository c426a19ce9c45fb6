//! Retries operations of a blob store that fails.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{BlobError, error::Result};
use crate::{config, ledger::jittered};

/// Who waits for an operation, which decides how long the operation is retried.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    /// A client, who should get an error soon.
    Client,
    /// A worker, which would otherwise lose a computed result.
    Worker,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The kind of a store, which decides which failures are retried and whether a try can be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only failures of the file system for a transient reason are retried. A try has no time limit, because its system
    /// calls continue after an interruption.
    Folder,
    /// Every failure is retried, except refusals.
    Bucket,
}

/// Repeats `attempt` until it succeeds or fails permanently. The end of the time interrupts a try on a bucket.
pub async fn persist<T, F>(
    settings: &config::Blobs,
    kind: Kind,
    waiting: Waiter,
    mut attempt: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let within: Duration = match waiting {
        Waiter::Client => settings.answer_timeout_s.into(),
        Waiter::Worker => settings.upload_timeout_s.into(),
    };
    let longest_pause: Duration = settings.retry_pause_max_s.into();
    let may_pass = |error: &BlobError| match kind {
        Kind::Folder => error.is_transient(),
        Kind::Bucket => error.may_pass(),
    };
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE.min(longest_pause);
    let mut last = None;
    loop {
        let attempted = match kind {
            Kind::Folder => Ok(attempt().await),
            Kind::Bucket => timeout_at(deadline, attempt()).await,
        };
        let error = match attempted {
            Ok(Err(error)) if may_pass(&error) => error,
            Ok(done) => return done,
            // An earlier error says more than the timeout.
            Err(_) => return Err(last.unwrap_or(BlobError::NoAnswer { within })),
        };
        let next = Instant::now() + jittered(pause);
        if next >= deadline {
            return Err(error);
        }
        if last.is_none() {
            tracing::warn!(%error, ?within, "an operation of the blob store failed and is tried again");
        }
        last = Some(error);
        sleep_until(next).await;
        pause = (2 * pause).min(longest_pause);
    }
}
