//! The queue: back into it, and out of it because nobody came.

use std::time::Duration;

use sqlx::{Row, postgres::PgRow};

use crate::crash::Attempt;
use crate::generation::{GenerationId, Priority, Problem, Record, Status};
use crate::ledger::{Claimant, Lease, Reaped, Reaping, Renewed, StoreError};

use super::{
    PgStore,
    change::{Change, Ending},
    row,
};

pub async fn renew(store: &PgStore, by: &Claimant, leases: &[Lease]) -> Result<Vec<Renewed>, StoreError> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = leases.iter().map(|lease| row::uuid(lease.id)).collect();
    let fences: Vec<_> = leases.iter().map(|lease| lease.fence).collect();
    let mut loan = store.lend().await?;
    let rows = sqlx::query(
        "UPDATE generations SET lease_expires_at = statement_timestamp() + $3
         FROM unnest($1::uuid[], $2::bigint[]) AS held (held_id, held_fence)
         WHERE id = held_id AND fence = held_fence AND status = 'running'
         RETURNING id, fence, cancel_requested_at IS NOT NULL AS cancel_requested",
    )
    .bind(ids)
    .bind(fences)
    .bind(row::interval(by.lease))
    .fetch_all(&mut *loan)
    .await?;
    loan.give_back();
    let renewed = |row: &PgRow| {
        let (id, fence, cancel_requested) = (row::id(row)?, row.try_get("fence")?, row.try_get("cancel_requested")?);
        Ok(Renewed { id, fence, cancel_requested })
    };
    rows.iter().map(renewed).collect()
}

pub async fn reap(store: &PgStore, reaping: &Reaping) -> Result<Reaped, StoreError> {
    let mut change = Change::begin(store).await?;
    let reaped = take_back(&mut change, reaping).await;
    change.conclude(reaped).await
}

async fn take_back(change: &mut Change, reaping: &Reaping) -> Result<Reaped, StoreError> {
    let most = i32::try_from(reaping.max_crashes).unwrap_or(i32::MAX);
    let rows = sqlx::query(
        "UPDATE generations
         SET crash_count = crash_count + 1
         WHERE id = ANY(ARRAY(
             SELECT id FROM generations WHERE status = 'running' AND ($1 OR lease_expires_at <= statement_timestamp())
             ORDER BY id FOR NO KEY UPDATE SKIP LOCKED))
         RETURNING id, crash_count, cancel_requested_at IS NOT NULL AS cancel_requested",
    )
    .bind(reaping.all)
    .fetch_all(change.connection())
    .await?;
    let (mut canceled, mut queued, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (id, crashes) = (row::id(row)?, row.try_get::<i32, _>("crash_count")?);
        if row.try_get("cancel_requested")? {
            canceled.push(id);
        } else if crashes >= most {
            let problem = Problem::crashed(crashes.unsigned_abs());
            ended.push(change.end(id, Ending::GivenUp(&problem)).await?);
        } else {
            let delay = if reaping.all { Duration::ZERO } else { reaping.delay(crashes.unsigned_abs()) };
            queued.push((id, delay));
        }
    }
    ended.extend(change.end_all(&canceled, Ending::Canceled).await?);
    change.requeue_all(&queued, 0, "worker_crashed").await?;
    let ended = ended.iter().filter_map(row::readable).collect();
    Ok(Reaped { queued: queued.into_iter().map(|(id, _)| id).collect(), ended })
}

pub async fn condemn(store: &PgStore, attempt: Attempt) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let condemned = give_up(&mut change, attempt).await;
    change.conclude(condemned).await
}

async fn give_up(change: &mut Change, attempt: Attempt) -> Result<Option<Record>, StoreError> {
    let Some(held) = change.lock(attempt.id).await? else { return Ok(None) };
    let record = row::record(&held)?;
    if held.try_get::<i64, _>("fence")? != attempt.fence || record.status.is_terminal() {
        return Ok(None);
    }
    // Whoever has reaped it has counted the crash.
    if record.status == Status::Running {
        sqlx::query("UPDATE generations SET crash_count = crash_count + 1 WHERE id = $1")
            .bind(row::uuid(attempt.id))
            .execute(change.connection())
            .await?;
    }
    let problem = Problem::aborted();
    let ending = if record.cancel_requested { Ending::Canceled } else { Ending::GivenUp(&problem) };
    row::record(&change.end(attempt.id, ending).await?).map(Some)
}

pub async fn expire_overdue(store: &PgStore) -> Result<Vec<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let expired = expire(&mut change).await;
    change.conclude(expired).await
}

async fn expire(change: &mut Change) -> Result<Vec<Record>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM generations WHERE status = 'queued' AND start_deadline <= statement_timestamp()
         ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
    )
    .fetch_all(change.connection())
    .await?;
    let ids = rows.iter().map(row::id).collect::<Result<Vec<GenerationId>, _>>()?;
    Ok(change.end_all(&ids, Ending::Expired).await?.iter().filter_map(row::readable).collect())
}

pub async fn age(store: &PgStore, after: Duration) -> Result<(), StoreError> {
    let mut loan = store.lend().await?;
    sqlx::query(
        "UPDATE generations SET priority = priority + 1, aged_at = statement_timestamp()
         WHERE id = ANY(ARRAY(
             SELECT id FROM generations
             WHERE status = 'queued' AND priority < $2 AND aged_at <= statement_timestamp() - $1
             FOR NO KEY UPDATE SKIP LOCKED))",
    )
    .bind(row::interval(after))
    .bind(Priority::High.rank())
    .execute(&mut *loan)
    .await?;
    loan.give_back();
    Ok(())
}
