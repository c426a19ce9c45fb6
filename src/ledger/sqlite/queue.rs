//! The queue: out of it by a claim, back into it, and out of it because nobody came.

use std::{collections::HashMap, time::Duration};

use futures::TryStreamExt;
use serde_json::json;
use sqlx::{Row, sqlite::SqliteRow};

use crate::generation::{EventKind, Problem, Record};
use crate::ledger::{Claimant, Lease, Reaped, Reaping, Renewed, StoreError};

use super::{
    SqliteStore,
    change::{Change, Ending},
    row, webhooks,
};

/// The queue in its order, as far as this worker may look.
const CANDIDATES: &str = "
    SELECT id, tenant_id, crash_count FROM generations
    WHERE status = 'queued' AND run_at <= ?1 AND (start_deadline IS NULL OR start_deadline > ?1)
        AND model IN (SELECT value FROM json_each(?2))
    ORDER BY priority DESC, vft, id";

pub async fn claim(
    store: &SqliteStore,
    by: &Claimant,
    limit: usize,
    idle: bool,
) -> Result<Vec<(Record, Lease)>, StoreError> {
    let mut change = Change::begin(store).await?;
    let picked = pick(&mut change, by, limit, idle).await?;
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let expires_at = change.now.saturating_add(row::millis(by.lease));
    let mut claimed = Vec::with_capacity(picked.len());
    for id in picked {
        let row = sqlx::query(
            "UPDATE generations
             SET status = 'running', attempt = attempt + 1, fence = fence + 1, version = version + 1,
                 started_at = coalesce(started_at, ?2), start_deadline = NULL, lease_owner = ?3, lease_expires_at = ?4
             WHERE id = ?1 AND status = 'queued'
             RETURNING *",
        )
        .bind(&id[..])
        .bind(change.now)
        .bind(&by.worker)
        .bind(expires_at)
        .fetch_one(change.connection())
        .await?;
        claimed.extend(start(&mut change, &row).await?);
    }
    change.commit().await?;
    Ok(claimed)
}

/// The ids of the next generations for this worker.
async fn pick(change: &mut Change, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut room = room_of_tenants(change).await?;
    let (now, models) = (change.now, row::json(&by.models)?);
    let mut rows = sqlx::query(CANDIDATES).bind(now).bind(models).fetch(change.connection());
    let mut picked = Vec::new();
    while picked.len() < limit
        && let Some(row) = rows.try_next().await?
    {
        let left = room.get_mut(row.try_get::<&str, _>("tenant_id")?);
        if left.as_ref().is_some_and(|left| **left <= 0) {
            continue;
        }
        let alone = row.try_get::<i64, _>("crash_count")? > 0;
        if alone && (!idle || !picked.is_empty()) {
            break;
        }
        left.into_iter().for_each(|left| *left -= 1);
        picked.push(row.try_get("id")?);
        if alone {
            break;
        }
    }
    Ok(picked)
}

/// How many more each tenant may run, of those with a bound.
async fn room_of_tenants(change: &mut Change) -> Result<HashMap<String, i64>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, max_running - (SELECT count(*) FROM generations WHERE status = 'running' AND tenant_id = tenants.id) AS room
         FROM tenants WHERE max_running IS NOT NULL",
    )
    .fetch_all(change.connection())
    .await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("room")?))).collect()
}

/// Tells of the start of a claimed generation and lets the virtual time go on.
async fn start(change: &mut Change, row: &SqliteRow) -> Result<Option<(Record, Lease)>, StoreError> {
    let id = row::id(row)?;
    let attempt: u32 = row.try_get("attempt")?;
    change.append(id, EventKind::Started, json!({"id": id, "attempt": attempt})).await?;
    webhooks::enqueue(change, row, EventKind::Started).await?;
    sqlx::query("UPDATE queue_clock SET v = max(v, ?)")
        .bind(row.try_get::<f64, _>("vft")?)
        .execute(change.connection())
        .await?;
    match row::record(row) {
        Ok(record) => Ok(Some((record, Lease { id, fence: row.try_get("fence")? }))),
        // It would fail every later claim as well, and nobody behind it would ever run.
        Err(error) => {
            tracing::error!(%error, "a generation fails since it cannot be read");
            let message = "the stored request cannot be read".to_owned();
            let problem = Problem { code: "internal".to_owned(), message, retryable: false };
            change.end(id, Ending::Failed(problem)).await?;
            Ok(None)
        }
    }
}

pub async fn renew(store: &SqliteStore, by: &Claimant, leases: &[Lease]) -> Result<Vec<Renewed>, StoreError> {
    let mut change = Change::begin(store).await?;
    let expires_at = change.now.saturating_add(row::millis(by.lease));
    let mut renewed = Vec::with_capacity(leases.len());
    for lease in leases {
        let row = sqlx::query(
            "UPDATE generations SET lease_expires_at = ? WHERE id = ? AND fence = ? AND status = 'running'
             RETURNING cancel_requested_at",
        )
        .bind(expires_at)
        .bind(&lease.id.as_bytes()[..])
        .bind(lease.fence)
        .fetch_optional(change.connection())
        .await?;
        if let Some(row) = row {
            let cancel_requested = row.try_get::<Option<i64>, _>("cancel_requested_at")?.is_some();
            renewed.push(Renewed { id: lease.id, fence: lease.fence, cancel_requested });
        }
    }
    change.commit().await?;
    Ok(renewed)
}

pub async fn reap(store: &SqliteStore, reaping: &Reaping) -> Result<Reaped, StoreError> {
    let mut change = Change::begin(store).await?;
    let rows = sqlx::query(
        "SELECT id, crash_count, cancel_requested_at FROM generations
         WHERE status = 'running' AND (?1 OR lease_expires_at <= ?2)",
    )
    .bind(reaping.all)
    .bind(change.now)
    .fetch_all(change.connection())
    .await?;
    let mut reaped = Reaped::default();
    for row in &rows {
        let id = row::id(row)?;
        let crashes = row.try_get::<u32, _>("crash_count")?.saturating_add(1);
        change.count_crash(id, crashes >= reaping.max_crashes).await?;
        if row.try_get::<Option<i64>, _>("cancel_requested_at")?.is_some() {
            reaped.ended.extend(row::readable(&change.end(id, Ending::Canceled).await?));
        } else if crashes >= reaping.max_crashes {
            let problem = Problem::crashed(crashes);
            reaped.ended.extend(row::readable(&change.end(id, Ending::Failed(problem)).await?));
        } else {
            let delay = if reaping.all { Duration::ZERO } else { reaping.delay(crashes) };
            change.requeue(id, 0, delay, "worker_crashed").await?;
            reaped.queued.push(id);
        }
    }
    change.commit().await?;
    Ok(reaped)
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

pub async fn age(store: &SqliteStore, after: Duration) -> Result<(), StoreError> {
    let mut change = Change::begin(store).await?;
    let highest = crate::generation::Priority::High.rank();
    sqlx::query(
        "UPDATE generations SET priority = priority + 1, aged_at = ?1
         WHERE status = 'queued' AND priority < ?3 AND aged_at <= ?1 - ?2",
    )
    .bind(change.now)
    .bind(row::millis(after))
    .bind(highest)
    .execute(change.connection())
    .await?;
    change.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_claim_reads_only_its_index_and_sorts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Duration::ZERO).await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {CANDIDATES}")))
            .bind(0_i64)
            .bind("[\"tiny\"]")
            .fetch_all(&store.writer)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("USING COVERING INDEX generations_claim"), "{plan}");
        assert!(!plan.contains("SCAN generations\n") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
