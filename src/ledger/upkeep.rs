//! What is done for the queue from time to time: it is taken back whose worker is gone, given up who crashes, expired whom
//! nobody has begun, raised who waits, forgotten what is over.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Ledger, Reaped, Reaping, StoreError, Upkeep,
    change::{Move, Step, atomically, columns},
    dialect::{Columns, Dialect, values},
    fleet::FORGOTTEN,
    record::{readable, record},
};
use crate::crash::Attempt;
use crate::generation::{GenerationId, Priority, Problem, Record, Status};

/// What runs without a lease.
pub(super) const LATE: &str = "
    SELECT id, crash_count, cancel_requested_at IS NOT NULL AS cancel_requested
    FROM generations INDEXED BY generations_running
    WHERE status = 'running' AND ($1 OR lease_expires_at <= now())
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";

/// What nobody has begun in time.
pub(super) const OVERDUE: &str = "
    SELECT id FROM generations INDEXED BY generations_start WHERE status = 'queued' AND start_deadline <= now()
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";

pub(super) const AGE: &str = "
    WITH waiting AS MATERIALIZED (
        SELECT id AS waiting_id FROM generations INDEXED BY generations_aged
        WHERE status = 'queued' AND aged_at <= now() - $1 AND priority < $2 FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE generations SET priority = priority + 1, aged_at = now() FROM waiting WHERE id = waiting_id";

#[async_trait]
impl<D: Dialect> Upkeep for Ledger<D> {
    async fn reap(&self, reaping: &Reaping) -> Result<Reaped, StoreError> {
        atomically!(self, |change| {
            let late = change.fetch(LATE, values![reaping.all]).await?;
            let late =
                late.iter().map(|row| Ok((row.get("id")?, row.get("crash_count")?, row.get("cancel_requested")?)));
            let late: Vec<(GenerationId, u32, bool)> = late.collect::<Result<_, sqlx::Error>>()?;
            let problems: Vec<_> =
                late.iter().map(|(_, crashes, _)| Problem::crashed(crashes.saturating_add(1))).collect();
            let (mut steps, mut queued) = (Vec::new(), Vec::new());
            for ((id, counted, is_canceled), problem) in late.into_iter().zip(&problems) {
                let crashes = counted.saturating_add(1);
                let to = if is_canceled {
                    Move::Canceled
                } else if crashes >= reaping.max_crashes {
                    Move::GivenUp(problem)
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

    async fn condemn(&self, attempt: Attempt) -> Result<Option<Record>, StoreError> {
        atomically!(self, |change| {
            let Some(held) = change.lock(attempt.id).await? else { return Ok(None) };
            let found = record(&held)?;
            if held.get::<i64>("fence")? != attempt.fence || found.status.is_terminal() {
                return Ok(None);
            }
            // Whoever has reaped it has counted the crash.
            let crashes = u32::from(found.status == Status::Running);
            let problem = Problem::aborted();
            let to = if found.cancel_requested { Move::Canceled } else { Move::GivenUp(&problem) };
            let moved = change.set_state(&[Step { id: attempt.id, crashes, to }]).await?;
            moved.first().map(record).transpose()
        })
    }

    async fn expire_overdue(&self) -> Result<Vec<Record>, StoreError> {
        atomically!(self, |change| {
            let overdue = change.fetch(OVERDUE, values![]).await?;
            let step = |row: &D::Row| Ok(Step { id: row.get("id")?, crashes: 0, to: Move::Expired });
            let steps = overdue.iter().map(step).collect::<Result<Vec<_>, sqlx::Error>>()?;
            Ok(change.set_state(&steps).await?.iter().filter_map(readable).collect())
        })
    }

    async fn age(&self, after: Duration) -> Result<(), StoreError> {
        self.write(AGE, values![after, Priority::High.rank()]).await.map(drop)
    }

    async fn overdue_for_deletion(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        let (mut overdue, mut seen) = (Vec::new(), 0);
        // Rows that cannot be read are passed over, so that it may take more than one look.
        while overdue.len() < limit {
            let wanted = limit - overdue.len();
            let text = concat!(
                "SELECT ",
                columns!(),
                " FROM generations WHERE expires_at <= now() ORDER BY expires_at, id LIMIT $1 OFFSET $2"
            );
            let rows = self.read(text, values![wanted, seen]).await?;
            overdue.extend(rows.iter().filter_map(readable));
            seen += rows.len();
            if rows.len() < wanted {
                break;
            }
        }
        Ok(overdue)
    }

    async fn purge(&self) -> Result<(), StoreError> {
        let keys = "WITH overdue AS MATERIALIZED (
                SELECT tenant_id AS tenant, key AS old FROM idempotency WHERE expires_at <= now() FOR UPDATE SKIP LOCKED)
            DELETE FROM idempotency WHERE (tenant_id, key) IN (SELECT tenant, old FROM overdue)";
        self.write(keys, values![]).await?;
        self.write("DELETE FROM workers WHERE beaten_at <= now() - $1", values![FORGOTTEN]).await?;
        if D::IS_SHARED {
            // What a report has left that crossed the end of its run.
            for text in [
                "DELETE FROM generation_progress AS left_over
                 WHERE NOT EXISTS (SELECT FROM generations WHERE id = left_over.generation_id AND status = 'running')",
                "DELETE FROM artifact_previews AS left_over
                 WHERE NOT EXISTS (SELECT FROM generations WHERE id = left_over.generation_id AND status = 'running')",
            ] {
                self.write(text, values![]).await?;
            }
        }
        Ok(())
    }
}
