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
    /// A worker that would lose a computed result.
    Worker,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Repeats `attempt` until it succeeds or fails permanently, or until the time is over, even during an attempt.
pub async fn persist<T, F>(settings: &config::Blobs, waiting: Waiter, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let within: Duration = match waiting {
        Waiter::Client => settings.answer_timeout_s.into(),
        Waiter::Worker => settings.upload_timeout_s.into(),
    };
    let longest_pause: Duration = settings.retry_pause_max_s.into();
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE.min(longest_pause);
    let mut last = None;
    loop {
        let error = match timeout_at(deadline, attempt()).await {
            Ok(Err(error)) if error.may_pass() => error,
            Ok(done) => return done,
            // An earlier error says more than the timeout.
            Err(_) => return Err(last.unwrap_or(BlobError::NoAnswer { within })),
        };
        let next = Instant::now() + jittered(pause);
        if next >= deadline {
            return Err(error);
        }
        if last.is_none() {
            tracing::warn!(%error, ?within, "the blob store fails and is asked again");
        }
        last = Some(error);
        sleep_until(next).await;
        pause = (2 * pause).min(longest_pause);
    }
}
