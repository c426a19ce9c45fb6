//! The clock of the store: milliseconds since 1970 that never go back.
//!
//! The system's clock may be set back by an hour. Times that were stored before would then be in the future, and
//! everything that waits for a time, above all the queue, would wait for that hour.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::ledger::Result;
use crate::ledger::dialect::{Dialect, values};

use super::Sqlite;

/// Follows the system's clock forward. If the system's clock is set back, continues by the elapsed time.
pub struct Clock {
    read: Box<dyn Fn() -> Reading + Send + Sync>,
    /// The latest reading in which the system's clock was not behind the expected time.
    last: Mutex<Reading>,
}

/// One reading of the system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Milliseconds since 1970, from a clock that can be set.
    pub wall_ms: i64,
    /// Time since some moment, from a clock that cannot be set.
    pub steady: Duration,
}

impl Clock {
    pub fn system() -> Clock {
        let began = Instant::now();
        Clock::new(move || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Reading { wall_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX), steady: began.elapsed() }
        })
    }

    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Clock {
        Clock { last: Mutex::new(read()), read: Box::new(read) }
    }

    pub fn now_ms(&self) -> i64 {
        let mut last = self.last.lock();
        let now = (self.read)();
        let passed = i64::try_from(now.steady.saturating_sub(last.steady).as_millis()).unwrap_or(i64::MAX);
        let expected = last.wall_ms.saturating_add(passed);
        if now.wall_ms >= expected {
            *last = now;
        }
        now.wall_ms.max(expected)
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// The latest time that the previous process has written, from columns that are never ahead of its clock. `aged_at` is
/// when a generation was accepted or last rose in priority, `beaten_at` the time of a worker's last heartbeat.
const LATEST: &str = "
    SELECT coalesce(max(at), 0) AS latest FROM (
        SELECT max(created_at, aged_at, coalesce(started_at, 0)) AS at FROM generations
            WHERE status IN ('queued', 'running')
        UNION ALL SELECT beaten_at FROM workers)";

/// If the clock was set back after the last write of the previous process, moves back the stored times that
/// generations and webhook messages wait for.
pub async fn settle(db: &Sqlite) -> Result<()> {
    let mut change = db.begin(false).await?;
    let now = db.clock.now_ms();
    let latest = change.fetch(LATEST, &[]).await?;
    let ahead = latest.first().ok_or(sqlx::Error::RowNotFound)?.get::<i64>("latest")? - now;
    if ahead <= 0 {
        return Ok(());
    }
    tracing::warn!(ahead_s = ahead / 1000, "the system's clock was set back; stored due times are moved back");
    let values = values![now, ahead];
    for text in [
        "UPDATE generations SET run_at = run_at - $2 WHERE status = 'queued' AND run_at > $1",
        "UPDATE generations SET start_deadline = start_deadline - (created_at - $1)
         WHERE status = 'queued' AND created_at > $1",
        "UPDATE generations SET aged_at = $1 WHERE status = 'queued' AND aged_at > $1",
        "UPDATE webhook_deliveries SET due_at = due_at - $2 WHERE state = 'pending' AND due_at > $1",
    ] {
        change.fetch(text, &values).await?;
    }
    change.conclude(true).await
}
