//! How long a store that fails is asked again.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{BlobError, error::Result};
use crate::{config, ledger::jittered};

/// Who waits for the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    /// Somebody who would rather hear that it fails.
    Client,
    /// A worker with something that it has computed.
    Worker,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Tries until it works, until the store refuses for good, or until the time is over, which also ends a try under way.
pub async fn persist<T, F>(settings: &config::Blobs, waiting: Waiting, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let within: Duration = match waiting {
        Waiting::Client => settings.answer_timeout_s.into(),
        Waiting::Worker => settings.upload_timeout_s.into(),
    };
    let longest_pause: Duration = settings.retry_pause_max_s.into();
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE.min(longest_pause);
    let mut last = None;
    loop {
        let error = match timeout_at(deadline, attempt()).await {
            Ok(Err(error)) if error.may_pass() => error,
            Ok(done) => return done,
            // What it said before tells more than its silence now.
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
