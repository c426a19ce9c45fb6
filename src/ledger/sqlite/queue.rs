//! The queue: into it, out of it by a claim, back into it, and out of it because nobody came.

use std::time::Duration;

use serde_json::json;
use sqlx::Row;

use crate::generation::{EventKind, Generation, GenerationId, Problem, Record};
use crate::ledger::{Lease, StoreError};

use super::{
    SqliteStore,
    change::{Change, Ending},
    row, webhooks,
};

pub async fn accept(
    store: &SqliteStore,
    id: GenerationId,
    generation: &Generation,
    max_queued: usize,
) -> Result<Record, StoreError> {
    let params = row::json(generation)?;
    let mut change = Change::begin(store).await?;
    let queued: i64 = sqlx::query_scalar("SELECT count(*) FROM generations WHERE status = 'queued'")
        .fetch_one(change.connection())
        .await?;
    if row::size(queued) >= max_queued {
        return Err(StoreError::QueueFull { queued: row::size(queued) });
    }
    let now = change.now;
    let inserted = sqlx::query(
        "INSERT INTO generations (id, status, model, params, created_at, run_at, start_deadline)
         VALUES (?, 'queued', ?, ?, ?, ?, ?)
         RETURNING *",
    )
    .bind(&id.as_bytes()[..])
    .bind(&generation.model)
    .bind(params)
    .bind(now)
    .bind(now)
    .bind(now + i64::from(generation.start_timeout_s) * 1000)
    .fetch_one(change.connection())
    .await?;
    let record = row::record(&inserted)?;
    for input in generation.inputs() {
        sqlx::query("INSERT OR IGNORE INTO generation_inputs (sha256, generation_id) VALUES (?, ?)")
            .bind(&input.upload)
            .bind(&id.as_bytes()[..])
            .execute(change.connection())
            .await?;
    }
    change.append(id, EventKind::Queued, json!({"id": id, "status": "queued"})).await?;
    change.commit().await?;
    Ok(record)
}

/// Oldest first is by id, since ids grow with time; a generation that comes back to the queue has its old place.
const CLAIM: &str = "
    UPDATE generations
    SET status = 'running', attempt = attempt + 1, fence = fence + 1, version = version + 1,
        started_at = coalesce(started_at, ?1), start_deadline = NULL
    WHERE id IN (
        SELECT id FROM generations
        WHERE status = 'queued' AND run_at <= ?1 AND (start_deadline IS NULL OR start_deadline > ?1)
        ORDER BY id LIMIT ?2)
    RETURNING *";

pub async fn claim(store: &SqliteStore, limit: usize) -> Result<Vec<(Record, Lease)>, StoreError> {
    let mut change = Change::begin(store).await?;
    let rows = sqlx::query(CLAIM)
        .bind(change.now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(change.connection())
        .await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = row::id(row)?;
        let attempt: u32 = row.try_get("attempt")?;
        change.append(id, EventKind::Started, json!({"id": id, "attempt": attempt})).await?;
        webhooks::enqueue(&mut change, row, EventKind::Started).await?;
        match row::record(row) {
            Ok(record) => claimed.push((record, Lease { id, fence: row.try_get("fence")? })),
            // It would fail every later claim as well, and nobody behind it would ever run.
            Err(error) => {
                tracing::error!(%error, "a generation fails since it cannot be read");
                let message = "the stored request cannot be read".to_owned();
                let problem = Problem { code: "internal".to_owned(), message, retryable: false };
                change.end(id, Ending::Failed(problem)).await?;
            }
        }
    }
    change.commit().await?;
    // RETURNING promises no order.
    claimed.sort_by_key(|(record, _)| record.id);
    Ok(claimed)
}

pub async fn requeue_running(store: &SqliteStore, max_attempts: u32) -> Result<usize, StoreError> {
    let mut change = Change::begin(store).await?;
    let rows = sqlx::query("SELECT id, attempt, cancel_requested_at FROM generations WHERE status = 'running'")
        .fetch_all(change.connection())
        .await?;
    let mut queued = 0;
    for row in &rows {
        let id = row::id(row)?;
        let attempt: u32 = row.try_get("attempt")?;
        if row.try_get::<Option<i64>, _>("cancel_requested_at")?.is_some() {
            change.end(id, Ending::Canceled).await?;
        } else if attempt >= max_attempts {
            let message = format!("the server ended {attempt} times while it ran this generation");
            let problem = Problem { code: "worker_crashed".to_owned(), message, retryable: false };
            change.end(id, Ending::Failed(problem)).await?;
        } else {
            change.requeue(id, 0, Duration::ZERO, "worker_crashed").await?;
            queued += 1;
        }
    }
    change.commit().await?;
    Ok(queued)
}

pub async fn expire_overdue(store: &SqliteStore) -> Result<Vec<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let rows = sqlx::query("SELECT id FROM generations WHERE status = 'queued' AND start_deadline <= ?")
        .bind(change.now)
        .fetch_all(change.connection())
        .await?;
    let mut expired = Vec::with_capacity(rows.len());
    for row in &rows {
        let ended = change.end(row::id(row)?, Ending::Expired).await?;
        expired.extend(row::readable(&ended));
    }
    change.commit().await?;
    Ok(expired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_claim_reads_only_its_index_and_sorts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {CLAIM}")))
            .bind(0_i64)
            .bind(1_i64)
            .fetch_all(&store.writer)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("USING COVERING INDEX generations_queue (status=?)"), "{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
