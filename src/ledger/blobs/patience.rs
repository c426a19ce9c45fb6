//! How long a store that fails is asked again.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::BlobError;
use crate::config;

/// The bounds for a store behind a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    answer: Duration,
    upload: Duration,
    longest_pause: Duration,
}

/// Who waits for the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    /// Somebody who would rather hear that it fails.
    Client,
    /// A worker with something that it has computed.
    Worker,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Patience {
    pub fn of(settings: &config::Blobs) -> Patience {
        Patience {
            answer: settings.answer_timeout_s.into(),
            upload: settings.upload_timeout_s.into(),
            longest_pause: settings.retry_pause_max_s.into(),
        }
    }

    /// Tries until it works, until the store refuses for good, or until the time is over, which also ends a try under way.
    pub async fn persist<T, F>(&self, waiting: Waiting, mut attempt: impl FnMut() -> F) -> Result<T, BlobError>
    where
        F: Future<Output = Result<T, BlobError>>,
    {
        let within = match waiting {
            Waiting::Client => self.answer,
            Waiting::Worker => self.upload,
        };
        let deadline = Instant::now() + within;
        let mut pause = FIRST_PAUSE.min(self.longest_pause);
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
            pause = (2 * pause).min(self.longest_pause);
        }
    }
}

/// Between half of it and all of it, so that those who failed together do not return together.
fn jittered(pause: Duration) -> Duration {
    let share = getrandom::u32().map_or(1.0, |random| 0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(share)
}
