//! How generations leave: finished by their worker, canceled by their client, deleted.

use std::time::Duration;

use serde_json::json;
use sqlx::{Row, postgres::PgRow};

use crate::generation::{EventKind, GenerationId, Record, Status};
use crate::ledger::{Lease, Outcome, StoreError};

use super::{
    PgStore,
    change::{Change, Ending},
    row,
};

pub async fn finish(store: &PgStore, lease: &Lease, outcome: &Outcome) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let finished = end_run(&mut change, lease, outcome).await;
    change.conclude(finished).await
}

async fn end_run(change: &mut Change, lease: &Lease, outcome: &Outcome) -> Result<Option<Record>, StoreError> {
    let Some(held) = change.lock(lease.id).await? else { return Ok(None) };
    let held_still = held.try_get::<i64, _>("fence")? == lease.fence && held.try_get::<&str, _>("status")? == "running";
    if !held_still {
        return Ok(None);
    }
    let ended = write(change, &row::record(&held)?, outcome).await?;
    row::record(&ended).map(Some)
}

async fn write(change: &mut Change, running: &Record, outcome: &Outcome) -> Result<PgRow, StoreError> {
    let id = running.id;
    match outcome {
        // What was promised to its client first; the worker erases the pictures.
        Outcome::Succeeded(_) if running.cancel_requested => change.end(id, Ending::Canceled).await,
        Outcome::Succeeded(artifacts) => change.end(id, Ending::Succeeded(artifacts)).await,
        Outcome::Failed(problem) => change.end(id, Ending::Failed(problem)).await,
        Outcome::Canceled => change.end(id, Ending::Canceled).await,
        // Queued again it would run although its client has canceled it.
        Outcome::Released | Outcome::Retry { .. } if running.cancel_requested => change.end(id, Ending::Canceled).await,
        Outcome::Released => change.requeue(id, 1, Duration::ZERO, "released").await,
        Outcome::Retry { problem, delay } => change.requeue(id, 0, *delay, &problem.code).await,
    }
}

pub async fn cancel(store: &PgStore, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let canceled = cancel_held(&mut change, id).await;
    change.conclude(canceled).await
}

async fn cancel_held(change: &mut Change, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let Some(row) = change.lock(id).await? else { return Ok(None) };
    let record = row::record(&row)?;
    let canceled = match record.status {
        Status::Queued => {
            mark(change, id, 0).await?;
            change.end(id, Ending::Canceled).await?
        }
        Status::Running if !record.cancel_requested => mark(change, id, 1).await?,
        _ => return Ok(Some(record)),
    };
    row::record(&canceled).map(Some)
}

/// Notes the client's wish. `versions`: by how much the version grows, 0 where another statement of the same change
/// lets it grow.
async fn mark(change: &mut Change, id: GenerationId, versions: i64) -> Result<PgRow, StoreError> {
    let sql = concat!(
        "UPDATE generations SET cancel_requested_at = statement_timestamp(), version = version + $2 WHERE id = $1
         RETURNING ",
        row::columns!()
    );
    Ok(sqlx::query(sql).bind(row::uuid(id)).bind(versions).fetch_one(change.connection()).await?)
}

pub async fn delete(store: &PgStore, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let deleted = erase(&mut change, id).await;
    change.conclude(deleted).await
}

async fn erase(change: &mut Change, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let Some(row) = change.lock(id).await? else { return Ok(None) };
    let record = row::record(&row)?;
    if !record.status.is_terminal() {
        return Err(StoreError::NotFinished);
    }
    // The events go with it, by their foreign key.
    sqlx::query("DELETE FROM generations WHERE id = $1").bind(row::uuid(id)).execute(change.connection()).await?;
    Ok(Some(record))
}

pub async fn revive(store: &PgStore, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let revived = queue_anew(&mut change, id).await;
    change.conclude(revived).await
}

async fn queue_anew(change: &mut Change, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let row = sqlx::query(concat!(
        "UPDATE generations
         SET status = 'queued', dead = false, crash_count = 0, attempt = 0, problem = NULL, run_at = statement_timestamp(),
             started_at = NULL, finished_at = NULL, expires_at = NULL, aged_at = statement_timestamp(), version = version + 1
         WHERE id = $1 AND dead
         RETURNING ",
        row::columns!()
    ))
    .bind(row::uuid(id))
    .fetch_optional(change.connection())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let told = json!({"id": id, "attempt": 0, "reason": "revived"});
    change.append(EventKind::Retrying, vec![(id, told)]).await?;
    row::record(&row).map(Some)
}
