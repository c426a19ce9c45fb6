//! Out of the queue, into a worker's hands.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{PgConnection, Row, postgres::PgRow, types::Uuid};

use crate::generation::{EventKind, GenerationId, Problem, Record};
use crate::ledger::{Claimant, Lease, StoreError};

use super::{
    PgStore,
    change::{Change, Ending},
    row, webhooks,
};

/// What claims that heed a bound of a tenant hold, one after the other.
const CLAIMS: i64 = i64::from_be_bytes(*b"latentdC");

/// The planner knows the queue as it was when statistics were last taken, often empty: left to itself it sorts what it takes
/// for a few rows, all of the queue, for every claim.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL enable_sort = off";

/// The queue in its order, as far as this worker may look: its models, without the tenants that have no room and without what
/// it has looked at.
macro_rules! candidates {
    () => {
        "SELECT id, tenant_id, crash_count FROM generations
         WHERE status = 'queued' AND run_at <= statement_timestamp()
             AND (start_deadline IS NULL OR start_deadline > statement_timestamp())
             AND model = ANY($1) AND tenant_id <> ALL($2) AND id <> ALL($3)
         ORDER BY priority DESC, vft, id
         LIMIT $4"
    };
}

/// Only looks, at what others may be taking.
const LOOK: &str = candidates!();
/// Takes the rows, so that no other claim sees them.
const TAKE: &str = concat!(candidates!(), " FOR UPDATE SKIP LOCKED");

pub async fn claim(
    store: &PgStore,
    by: &Claimant,
    limit: usize,
    idle: bool,
) -> Result<Vec<(Record, Lease)>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    // Most looks find nothing; they cost one statement.
    let mut loan = store.lend().await?;
    let nothing = look(&mut loan, by, &[]).await?.is_none();
    loan.give_back();
    if nothing {
        return Ok(Vec::new());
    }
    let mut change = Change::begin_by(store, BEGIN).await?;
    let claimed = take(&mut change, by, limit, idle).await;
    change.conclude(claimed).await
}

/// The head of the queue: whether it has crashed.
async fn look(connection: &mut PgConnection, by: &Claimant, full: &[String]) -> Result<Option<bool>, StoreError> {
    let head = sqlx::query(LOOK)
        .bind(&by.models)
        .bind(full)
        .bind(Vec::<Uuid>::new())
        .bind(1_i64)
        .fetch_optional(connection)
        .await?;
    head.map(|head| Ok(head.try_get::<i32, _>("crash_count")? > 0)).transpose()
}

async fn take(
    change: &mut Change,
    by: &Claimant,
    limit: usize,
    idle: bool,
) -> Result<Vec<(Record, Lease)>, StoreError> {
    let picked = pick(change, by, limit, idle).await?;
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(concat!(
        "UPDATE generations
         SET status = 'running', attempt = attempt + 1, fence = fence + 1, version = version + 1,
             started_at = coalesce(started_at, statement_timestamp()), start_deadline = NULL, lease_owner = $2,
             lease_expires_at = statement_timestamp() + $3
         WHERE id = ANY($1) AND status = 'queued'
         RETURNING ",
        row::columns!()
    ))
    .bind(&picked)
    .bind(&by.worker)
    .bind(row::interval(by.lease))
    .fetch_all(change.connection())
    .await?;
    let mut rows: HashMap<GenerationId, PgRow> =
        rows.into_iter().map(|row| Ok((row::id(&row)?, row))).collect::<Result<_, StoreError>>()?;
    // They come back in any order.
    let rows: Vec<PgRow> =
        picked.iter().filter_map(|id| rows.remove(&GenerationId::from_bytes(id.into_bytes()))).collect();
    start(change, &rows).await
}

/// Takes the next generations for this worker.
async fn pick(change: &mut Change, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<Uuid>, StoreError> {
    let alone =
        "SELECT EXISTS (SELECT FROM generations WHERE status = 'running' AND lease_owner = $1 AND crash_count > 0)";
    if sqlx::query_scalar(alone).bind(&by.worker).fetch_one(change.connection()).await? {
        return Ok(Vec::new());
    }
    let mut room = room_of_tenants(change).await?;
    let (mut picked, mut seen) = (Vec::new(), Vec::new());
    loop {
        let full: Vec<String> = room.iter().filter(|(_, left)| **left <= 0).map(|(id, _)| id.clone()).collect();
        // Not even for a moment may a worker that cannot have it hide it from an idle one.
        if !idle && picked.is_empty() && look(change.connection(), by, &full).await? != Some(false) {
            return Ok(picked);
        }
        let wanted = limit - picked.len();
        let rows = sqlx::query(TAKE)
            .bind(&by.models)
            .bind(&full)
            .bind(&seen)
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .fetch_all(change.connection())
            .await?;
        for row in &rows {
            let id: Uuid = row.try_get("id")?;
            seen.push(id);
            let left = room.get_mut(row.try_get::<&str, _>("tenant_id")?);
            if left.as_ref().is_some_and(|left| **left <= 0) {
                continue;
            }
            let alone = row.try_get::<i32, _>("crash_count")? > 0;
            if alone && (!idle || !picked.is_empty()) {
                return Ok(picked);
            }
            left.into_iter().for_each(|left| *left -= 1);
            picked.push(id);
            if alone {
                return Ok(picked);
            }
        }
        // What a tenant had no room for leaves room for others behind it.
        if picked.len() == limit || rows.len() < wanted {
            return Ok(picked);
        }
    }
}

/// How many more each tenant may run, of those with a bound. Where there is such a tenant one claims after the other, so that
/// the count is exact; all else that changes it only makes room.
async fn room_of_tenants(change: &mut Change) -> Result<HashMap<String, i64>, StoreError> {
    let bounded = "SELECT EXISTS (SELECT FROM tenants WHERE max_running IS NOT NULL)";
    if !sqlx::query_scalar::<_, bool>(bounded).fetch_one(change.connection()).await? {
        return Ok(HashMap::new());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CLAIMS).execute(change.connection()).await?;
    let rows = sqlx::query(
        "SELECT id, max_running - (SELECT count(*) FROM generations WHERE status = 'running' AND tenant_id = tenants.id) AS room
         FROM tenants WHERE max_running IS NOT NULL",
    )
    .fetch_all(change.connection())
    .await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("room")?))).collect()
}

/// Tells of the start of claimed generations and lets the virtual time go on.
async fn start(change: &mut Change, rows: &[PgRow]) -> Result<Vec<(Record, Lease)>, StoreError> {
    let (mut started, mut claimed, mut v) = (Vec::new(), Vec::new(), f64::MIN);
    let mut unreadable = Vec::new();
    for row in rows {
        let (id, attempt) = (row::id(row)?, row.try_get::<i32, _>("attempt")?);
        started.push((id, json!({"id": id, "attempt": attempt})));
        v = v.max(row.try_get("vft")?);
        match row::record(row) {
            Ok(record) => claimed.push((record, Lease { id, fence: row.try_get("fence")? })),
            // It would fail every later claim as well, and nobody behind it would ever run.
            Err(error) => {
                tracing::error!(%error, "a generation fails since it cannot be read");
                unreadable.push(id);
            }
        }
    }
    change.append(EventKind::Started, started).await?;
    webhooks::enqueue(change, rows, EventKind::Started).await?;
    if !unreadable.is_empty() {
        let message = "the stored request cannot be read".to_owned();
        let problem = Problem { code: "internal".to_owned(), message, retryable: false };
        change.end_all(&unreadable, Ending::Failed(&problem)).await?;
    }
    // Last, since those who accept wait for it.
    sqlx::query("UPDATE queue_clock SET v = $1 WHERE v < $1").bind(v).execute(change.connection()).await?;
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Executor};

    use super::{super::cluster::Cluster, *};

    /// However the server plans the statement: for these values, or once for all.
    #[tokio::test]
    async fn the_claim_walks_its_index_and_sorts_nothing() {
        let Some(cluster) = Cluster::shared() else { return };
        let mut connection = PgConnection::connect(&cluster.create_database().await).await.unwrap();
        sqlx::migrate!("migrations/postgres").run(&mut connection).await.unwrap();
        let fill = "INSERT INTO generations (id, tenant_id, status, model, priority, vft, aged_at, run_at, start_deadline, created_at, params)
            SELECT gen_random_uuid(), 'tenant ' || i % 5, 'queued', 'model ' || i % 3, i % 3, i, now(), now(), now() + '1 hour', now(),
                jsonb_build_object('prompt', repeat('x', 500))
            FROM generate_series(1, 10000) AS i";
        connection.execute(fill).await.unwrap();
        connection.execute(BEGIN).await.unwrap();
        // Without statistics; with those of an empty queue; with those of this one.
        let empty = "UPDATE generations SET status = 'canceled', finished_at = now(), expires_at = now();
                     ANALYZE generations;
                     UPDATE generations SET status = 'queued', finished_at = NULL, expires_at = NULL";
        for statistics in ["SELECT 1", empty, "ANALYZE generations"] {
            connection.execute(statistics).await.unwrap();
            for (at, sql) in [LOOK, TAKE].into_iter().enumerate() {
                for mode in ["force_custom_plan", "force_generic_plan"] {
                    let prepare = format!(
                        "DEALLOCATE ALL; SET plan_cache_mode = {mode};
                         PREPARE claim{at} (text[], text[], uuid[], bigint) AS {sql}"
                    );
                    connection.execute(AssertSqlSafe(prepare)).await.unwrap();
                    let explain =
                        format!("EXPLAIN EXECUTE claim{at} ('{{model 1,model 2}}', '{{tenant 3}}', '{{}}', 8)");
                    let lines = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
                    let plan: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
                    let plan = plan.join("\n");
                    assert!(plan.contains("Index Scan using generations_claim"), "{mode}: {plan}");
                    assert!(!plan.contains("Sort") && !plan.contains("Seq Scan"), "{mode}: {plan}");
                }
            }
        }
    }
}
