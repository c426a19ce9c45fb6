//! Regular maintenance of the queue: takes generations back from lost workers, ends generations with too many crashes
//! or a late start, raises the priority of waiting generations, and erases old rows.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Ledger, Reaped, Reaping, Result,
    change::{COLUMNS, Move, Step, atomically},
    dialect::values,
    fleet::FORGOTTEN,
    record::{readable, record},
    row::{Row, Unreadable},
    usage::USAGE_KEPT,
};
use crate::crash::Attempt;
use crate::generation::{GenerationId, Priority, Problem, Record, Status};

/// The methods of the ledger for the sweeper.
#[async_trait]
pub trait Upkeep: AsRef<Ledger> + Send + Sync + 'static {
    /// Takes back running generations with expired leases: counts a crash, and queues them again after a delay that
    /// doubles with each crash. With [`Reaping::all`], takes back all running generations, without delay. Generations
    /// with `max_crashes` crashes fail with `worker_crashed` and are marked dead. Generations with a cancel request are
    /// canceled. Several processes may do this at once.
    async fn reap(&self, reaping: &Reaping) -> Result<Reaped> {
        atomically!(self, |change| {
            let (mut steps, mut queued) = (Vec::new(), Vec::new());
            let late = "SELECT id, crash_count, cancel_requested_at IS NOT NULL AS cancel_requested
                 FROM generations INDEXED BY generations_running
                 WHERE status = 'running' AND ($1 OR lease_expires_at <= now())
                 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";
            for row in change.fetch(late, values![reaping.all]).await? {
                let id: GenerationId = row.get("id")?;
                let crashes = row.get::<u32>("crash_count")?.saturating_add(1);
                let to = if row.get("cancel_requested")? {
                    Move::Canceled
                } else if crashes >= reaping.max_crashes {
                    Move::GivenUp(Problem::crashed(crashes))
                } else {
                    queued.push(id);
                    let delay = if reaping.all { Duration::ZERO } else { reaping.delay(crashes) };
                    Move::Queued { delay, uncounted: 0, reason: "worker_crashed" }
                };
                steps.push(Step { id, crashes: 1, to });
            }
            let moved = change.set_state(&steps).await?;
            let ended = moved.iter().filter_map(readable).filter(|record| record.status.is_terminal()).collect();
            Ok(Reaped { queued, ended })
        })
    }

    /// Gives a generation up after one crash, because this attempt is known to have aborted its process: fails it with
    /// `worker_crashed` and marks it dead, or cancels it if its client has asked for that. `None`, and no change, if a
    /// later attempt has begun or the generation has ended.
    async fn give_up_aborted(&self, attempt: Attempt) -> Result<Option<Record>> {
        atomically!(self, |change| {
            let Some(held) = change.lock(attempt.id).await? else { return Ok(None) };
            let found = record(&held)?;
            if held.get::<i64>("fence")? != attempt.fence || found.status.is_terminal() {
                return Ok(None);
            }
            // If the generation was reaped already, its crash has been counted.
            let crashes = u32::from(found.status == Status::Running);
            let to = if found.cancel_requested { Move::Canceled } else { Move::GivenUp(Problem::aborted()) };
            let moved = change.set_state(&[Step { id: attempt.id, crashes, to }]).await?;
            moved.first().map(record).transpose()
        })
    }

    /// Expires queued generations whose `start_timeout_s` passed before their first claim, and returns them. A
    /// generation that began once and came back to the queue never expires.
    async fn expire_overdue(&self) -> Result<Vec<Record>> {
        atomically!(self, |change| {
            let overdue = "SELECT id FROM generations INDEXED BY generations_start
                 WHERE status = 'queued' AND start_deadline <= now() ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";
            let overdue = change.fetch(overdue, values![]).await?;
            let step = |row: &Row| Ok(Step { id: row.get("id")?, crashes: 0, to: Move::Expired });
            let steps = overdue.iter().map(step).collect::<Result<Vec<_>, Unreadable>>()?;
            Ok(change.set_state(&steps).await?.iter().filter_map(readable).collect())
        })
    }

    /// Raises the priority of queued generations by one, up to high, if they were accepted or last raised at least
    /// `after` ago.
    async fn age(&self, after: Duration) -> Result<()> {
        let text = "WITH waiting AS MATERIALIZED (
             SELECT id AS waiting_id FROM generations INDEXED BY generations_aged
             WHERE status = 'queued' AND aged_at <= now() - $1 AND priority < $2 FOR NO KEY UPDATE SKIP LOCKED)
         UPDATE generations SET priority = priority + 1, aged_at = now() FROM waiting WHERE id = waiting_id";
        self.as_ref().write(text, values![after, Priority::High.rank()]).await.map(drop)
    }

    /// At most `limit` finished generations whose retention has ended, for the sweeper to delete.
    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>> {
        let (mut overdue, mut seen) = (Vec::new(), 0);
        // Unreadable rows are skipped, so `limit` records may take several reads.
        while overdue.len() < limit {
            let wanted = limit - overdue.len();
            let text = format!(
                "SELECT {COLUMNS} FROM generations WHERE expires_at <= now() ORDER BY expires_at, id LIMIT $1 OFFSET $2"
            );
            let rows = self.as_ref().read(&text, values![wanted, seen]).await?;
            overdue.extend(rows.iter().filter_map(readable));
            seen += rows.len();
            if rows.len() < wanted {
                break;
            }
        }
        Ok(overdue)
    }

    /// Erases expired idempotency keys, workers without a heartbeat for an hour, old usage, and progress of ended runs.
    async fn purge(&self) -> Result<()> {
        let keys = "WITH overdue AS MATERIALIZED (
             SELECT tenant_id AS tenant, key AS old FROM idempotency WHERE expires_at <= now() FOR UPDATE SKIP LOCKED)
         DELETE FROM idempotency WHERE (tenant_id, key) IN (SELECT tenant, old FROM overdue)";
        self.as_ref().write(keys, values![]).await?;
        self.as_ref().write("DELETE FROM workers WHERE beaten_at <= now() - $1", values![FORGOTTEN]).await?;
        self.as_ref().write("DELETE FROM daily_usage WHERE last_at <= now() - $1", values![USAGE_KEPT]).await?;
        if self.as_ref().db.is_shared() {
            // A report that arrives as its run ends leaves rows behind.
            for table in ["generation_progress", "artifact_previews"] {
                let text = format!(
                    "DELETE FROM {table} AS left_over WHERE NOT EXISTS
                     (SELECT FROM generations WHERE id = left_over.generation_id AND status = 'running')"
                );
                self.as_ref().write(&text, values![]).await?;
            }
        }
        Ok(())
    }
}
