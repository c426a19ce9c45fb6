//! How generations leave: finished by their worker, canceled by their client, deleted.

use std::time::Duration;

use serde_json::json;
use sqlx::sqlite::SqliteRow;

use crate::generation::{EventKind, GenerationId, Record, Status};
use crate::ledger::{Lease, Outcome, StoreError};

use super::{
    SqliteStore,
    change::{Change, Ending},
    row,
};

pub async fn finish(store: &SqliteStore, lease: Lease, outcome: Outcome) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let held = sqlx::query("SELECT * FROM generations WHERE id = ? AND fence = ? AND status = 'running'")
        .bind(&lease.id.as_bytes()[..])
        .bind(lease.fence)
        .fetch_optional(change.connection())
        .await?;
    let Some(held) = held else { return Ok(None) };
    let ended = write(&mut change, &row::record(&held)?, outcome).await?;
    let record = row::record(&ended)?;
    change.commit().await?;
    Ok(Some(record))
}

async fn write(change: &mut Change, running: &Record, outcome: Outcome) -> Result<SqliteRow, StoreError> {
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
        Outcome::Retry { problem, delay } => change.requeue(id, 0, delay, &problem.code).await,
    }
}

pub async fn cancel(store: &SqliteStore, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let Some(row) = change.find(id).await? else { return Ok(None) };
    let record = row::record(&row)?;
    let canceled = match record.status {
        Status::Queued => {
            mark(&mut change, id, 0).await?;
            change.end(id, Ending::Canceled).await?
        }
        Status::Running if !record.cancel_requested => mark(&mut change, id, 1).await?,
        _ => return Ok(Some(record)),
    };
    let record = row::record(&canceled)?;
    change.commit().await?;
    Ok(Some(record))
}

/// Notes the client's wish. `versions`: by how much the version grows, 0 where another statement of the same change
/// lets it grow.
async fn mark(change: &mut Change, id: GenerationId, versions: i64) -> Result<SqliteRow, StoreError> {
    let now = change.now;
    let row =
        sqlx::query("UPDATE generations SET cancel_requested_at = ?, version = version + ? WHERE id = ? RETURNING *")
            .bind(now)
            .bind(versions)
            .bind(&id.as_bytes()[..])
            .fetch_one(change.connection())
            .await?;
    Ok(row)
}

pub async fn delete(store: &SqliteStore, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let Some(row) = change.find(id).await? else { return Ok(None) };
    let record = row::record(&row)?;
    if !record.status.is_terminal() {
        return Err(StoreError::NotFinished);
    }
    // The events go with it, by their foreign key.
    sqlx::query("DELETE FROM generations WHERE id = ?").bind(&id.as_bytes()[..]).execute(change.connection()).await?;
    change.commit().await?;
    Ok(Some(record))
}

pub async fn revive(store: &SqliteStore, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let row = sqlx::query(
        "UPDATE generations
         SET status = 'queued', dead = 0, crash_count = 0, attempt = 0, problem = NULL, run_at = ?1, started_at = NULL,
             finished_at = NULL, expires_at = NULL, aged_at = ?1, version = version + 1
         WHERE id = ?2 AND dead
         RETURNING *",
    )
    .bind(change.now)
    .bind(&id.as_bytes()[..])
    .fetch_optional(change.connection())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let record = row::record(&row)?;
    change.append(id, EventKind::Retrying, json!({"id": id, "attempt": 0, "reason": "revived"})).await?;
    change.commit().await?;
    Ok(Some(record))
}
