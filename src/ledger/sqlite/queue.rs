//! The queue: out of it by a claim, back into it, and out of it because nobody came.

use std::{collections::HashMap, time::Duration};

use futures::TryStreamExt;
use serde_json::json;
use sqlx::{Row, sqlite::SqliteRow};

use crate::crash::Attempt;
use crate::generation::{EventKind, Problem, Record, Status};
use crate::ledger::{Claimant, Lease, Reaped, Reaping, Renewed, StoreError};

use super::{
    SqliteStore,
    change::{Change, Ending},
    row, webhooks,
};

// These name their index, since the planner, which does not know how few generations are active, would take that of the
// statuses.

/// The queue in its order, as far as this worker may look.
const CANDIDATES: &str = "
    SELECT id, tenant_id, crash_count, (SELECT max_running FROM tenants WHERE tenants.id = tenant_id) AS most
    FROM generations INDEXED BY generations_claim
    WHERE status = 'queued' AND run_at <= ?1 AND (start_deadline IS NULL OR start_deadline > ?1)
        AND model IN (SELECT value FROM json_each(?2))
    ORDER BY priority DESC, vft, id";

/// How many generations of each tenant run, and whether one of them is one that this worker has to run alone.
const RUNNING: &str = "
    SELECT tenant_id, count(*) AS running, max(lease_owner IS ?1 AND crash_count > 0) AS is_alone
    FROM generations INDEXED BY generations_running
    WHERE status = 'running'
    GROUP BY tenant_id";

/// What runs without a lease.
const LATE: &str = "
    SELECT id, crash_count, cancel_requested_at FROM generations INDEXED BY generations_running
    WHERE status = 'running' AND lease_expires_at <= ?";

/// What nobody has begun in time.
const OVERDUE: &str = "
    SELECT id FROM generations INDEXED BY generations_start WHERE status = 'queued' AND start_deadline <= ?";

const AGE: &str = "
    UPDATE generations INDEXED BY generations_aged SET priority = priority + 1, aged_at = ?1
    WHERE status = 'queued' AND aged_at <= ?2 AND priority < ?3";

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
    let mut latest = f64::NEG_INFINITY;
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
        latest = latest.max(row.try_get("vft")?);
        claimed.extend(start(&mut change, &row).await?);
    }
    sqlx::query("UPDATE queue_clock SET v = max(v, ?)").bind(latest).execute(change.connection()).await?;
    change.commit().await?;
    Ok(claimed)
}

/// The ids of the next generations for this worker.
async fn pick(change: &mut Change, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<Vec<u8>>, StoreError> {
    let Some(mut running) = running(change, by).await? else { return Ok(Vec::new()) };
    let (now, models) = (change.now, row::json(&by.models)?);
    let mut rows = sqlx::query(CANDIDATES).bind(now).bind(models).fetch(change.connection());
    let mut picked = Vec::new();
    while picked.len() < limit
        && let Some(row) = rows.try_next().await?
    {
        let tenant: &str = row.try_get("tenant_id")?;
        let most = row.try_get::<Option<i64>, _>("most")?.map_or(usize::MAX, row::size);
        if running.get(tenant).is_some_and(|running| *running >= most) || most == 0 {
            continue;
        }
        let alone = row.try_get::<i64, _>("crash_count")? > 0;
        if alone && (!idle || !picked.is_empty()) {
            break;
        }
        *running.entry(tenant.to_owned()).or_default() += 1;
        picked.push(row.try_get("id")?);
        if alone {
            break;
        }
    }
    Ok(picked)
}

/// How many generations of each tenant run; `None` where this worker runs one that nothing may run beside.
async fn running(change: &mut Change, by: &Claimant) -> Result<Option<HashMap<String, usize>>, StoreError> {
    let rows = sqlx::query(RUNNING).bind(&by.worker).fetch_all(change.connection()).await?;
    let mut running = HashMap::new();
    for row in &rows {
        if row.try_get("is_alone")? {
            return Ok(None);
        }
        running.insert(row.try_get("tenant_id")?, row::size(row.try_get("running")?));
    }
    Ok(Some(running))
}

/// Tells of the start of a claimed generation.
async fn start(change: &mut Change, row: &SqliteRow) -> Result<Option<(Record, Lease)>, StoreError> {
    let id = row::id(row)?;
    let attempt: u32 = row.try_get("attempt")?;
    change.append(id, EventKind::Started, json!({"id": id, "attempt": attempt})).await?;
    webhooks::enqueue(change, row, EventKind::Started).await?;
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
    if leases.is_empty() {
        return Ok(Vec::new());
    }
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
    // All have a lease that ends at some time.
    let ended = if reaping.all { i64::MAX } else { change.now };
    let rows = sqlx::query(LATE).bind(ended).fetch_all(change.connection()).await?;
    let mut reaped = Reaped::default();
    for row in &rows {
        let id = row::id(row)?;
        let crashes = row.try_get::<u32, _>("crash_count")?.saturating_add(1);
        let is_canceled = row.try_get::<Option<i64>, _>("cancel_requested_at")?.is_some();
        change.count_crashes(id, 1, crashes >= reaping.max_crashes && !is_canceled).await?;
        if is_canceled {
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

pub async fn condemn(store: &SqliteStore, attempt: Attempt) -> Result<Option<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let held = sqlx::query("SELECT * FROM generations WHERE id = ? AND fence = ? AND status IN ('queued', 'running')")
        .bind(&attempt.id.as_bytes()[..])
        .bind(attempt.fence)
        .fetch_optional(change.connection())
        .await?;
    let Some(held) = held else { return Ok(None) };
    let record = row::record(&held)?;
    let is_dead = !record.cancel_requested;
    // Whoever has reaped it has counted the crash.
    let uncounted = u32::from(record.status == Status::Running);
    change.count_crashes(attempt.id, uncounted, is_dead).await?;
    let ending = if is_dead { Ending::Failed(Problem::aborted()) } else { Ending::Canceled };
    let record = row::record(&change.end(attempt.id, ending).await?)?;
    change.commit().await?;
    Ok(Some(record))
}

pub async fn expire_overdue(store: &SqliteStore) -> Result<Vec<Record>, StoreError> {
    let mut change = Change::begin(store).await?;
    let rows = sqlx::query(OVERDUE).bind(change.now).fetch_all(change.connection()).await?;
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
    sqlx::query(AGE)
        .bind(change.now)
        .bind(change.now - row::millis(after))
        .bind(highest)
        .execute(change.connection())
        .await?;
    change.commit().await
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{empty, plan},
        *,
    };

    #[tokio::test]
    async fn the_claim_reads_only_indexes_and_sorts_nothing() {
        let (_dir, store) = empty().await;
        let candidates = plan(&store, CANDIDATES).await;
        assert!(candidates.contains("generations USING COVERING INDEX generations_claim"), "{candidates}");
        assert!(candidates.contains("tenants USING INDEX sqlite_autoindex_tenants_1 (id=?)"), "{candidates}");
        let running = plan(&store, RUNNING).await;
        assert!(running.contains("generations USING COVERING INDEX generations_running"), "{running}");
        for plan in [candidates, running] {
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[tokio::test]
    async fn what_is_looked_for_every_second_is_found_by_an_index() {
        let (_dir, store) = empty().await;
        for (sql, index) in [(OVERDUE, "generations_start"), (AGE, "generations_aged")] {
            let plan = plan(&store, sql).await;
            assert!(plan.contains(&format!("SEARCH generations USING INDEX {index}")), "{plan}");
        }
        let late = plan(&store, LATE).await;
        assert!(late.contains("generations USING INDEX generations_running"), "{late}");
    }
}
