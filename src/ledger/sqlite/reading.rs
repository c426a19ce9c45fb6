//! Everything that only reads.

use std::time::Duration;

use futures::TryStreamExt;
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool, sqlite::SqliteRow};

use crate::generation::{Event, GenerationId, Record};
use crate::ledger::{Counts, Glance, ListQuery, Page, Place, StoreError, Workload};

use super::{SqliteStore, row};

const COUNTS: &str = "
    SELECT (SELECT count(*) FROM generations WHERE status = 'queued') AS queued,
           (SELECT count(*) FROM generations WHERE status = 'running') AS running";

const COUNTS_OF: &str = "
    SELECT (SELECT count(*) FROM generations WHERE status = 'queued' AND tenant_id = ?1) AS queued,
           (SELECT count(*) FROM generations WHERE status = 'running' AND tenant_id = ?1) AS running";

const WORKLOAD: &str = "
    WITH open AS (SELECT cost FROM generations WHERE status IN ('queued', 'running')),
         live AS (SELECT count(*) * ?2 AS slots, total(speed) AS speed FROM workers WHERE beaten_at > ?1),
         first AS (SELECT cost FROM open ORDER BY cost
                   LIMIT (SELECT max(0, (SELECT count(*) FROM open) + 1 - slots) FROM live))
    SELECT speed, total(cost) + max(0, slots - 1) * coalesce(max(cost), 0) AS cost FROM live LEFT JOIN first";

/// Two sums each, since one with "or" would find no start in the index.
const PLACE: &str = "
    SELECT (SELECT count(*) FROM generations AS other INDEXED BY generations_claim
            WHERE other.status = 'queued' AND other.priority > this.priority)
         + (SELECT count(*) FROM generations AS other INDEXED BY generations_claim
            WHERE other.status = 'queued' AND other.priority = this.priority
                AND (other.vft, other.id) < (this.vft, this.id)) AS position,
           (SELECT total(other.cost) FROM generations AS other INDEXED BY generations_claim
            WHERE other.status = 'queued' AND other.priority > this.priority)
         + (SELECT total(other.cost) FROM generations AS other INDEXED BY generations_claim
            WHERE other.status = 'queued' AND other.priority = this.priority
                AND (other.vft, other.id) < (this.vft, this.id)) AS cost
    FROM generations AS this WHERE this.id = ? AND this.status = 'queued'";

pub async fn get(readers: &SqlitePool, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM generations WHERE id = ?").bind(&id.as_bytes()[..]).fetch_optional(readers).await?;
    row.as_ref().map(row::record).transpose()
}

pub async fn list(readers: &SqlitePool, query: &ListQuery) -> Result<Page, StoreError> {
    // Towards newer generations the page next to the cursor is wanted, so that is the direction to walk.
    let ascending = query.before.is_some() && query.after.is_none();
    let mut sql = list_sql(query, ascending);
    let mut rows = sql.build().fetch(readers);
    let mut records = Vec::new();
    let mut has_more = false;
    while let Some(row) = rows.try_next().await? {
        let Some(record) = row::readable(&row) else { continue };
        if records.len() == query.limit {
            has_more = true;
            break;
        }
        records.push(record);
    }
    if ascending {
        records.reverse();
    }
    Ok(Page { records, has_more })
}

/// Only the filters that are asked for, since a condition with a way out ("or there is no filter") would use no index.
fn list_sql(query: &ListQuery, ascending: bool) -> QueryBuilder<Sqlite> {
    // Few are dead, which the planner does not know.
    let from = if query.dead { "generations INDEXED BY generations_dead" } else { "generations" };
    let mut sql = QueryBuilder::new("SELECT * FROM ");
    sql.push(from).push(" WHERE true");
    if let Some(after) = query.after {
        sql.push(" AND id < ").push_bind(after.as_bytes().to_vec());
    }
    if let Some(before) = query.before {
        sql.push(" AND id > ").push_bind(before.as_bytes().to_vec());
    }
    if let Some(status) = &query.status {
        sql.push(" AND status = ").push_bind(status.clone());
    }
    if let Some(model) = &query.model {
        sql.push(" AND model = ").push_bind(model.clone());
    }
    if let Some(tenant) = &query.tenant {
        sql.push(" AND tenant_id = ").push_bind(tenant.clone());
    }
    if query.dead {
        sql.push(" AND dead");
    }
    sql.push(if ascending { " ORDER BY id" } else { " ORDER BY id DESC" });
    sql
}

pub async fn find_input(readers: &SqlitePool, tenant: &str, sha256: &str) -> Result<Option<GenerationId>, StoreError> {
    let newest = "SELECT generation_id AS id FROM generation_inputs JOIN generations ON generations.id = generation_id
         WHERE sha256 = ? AND tenant_id = ? ORDER BY generation_id DESC LIMIT 1";
    let row = sqlx::query(newest).bind(sha256).bind(tenant).fetch_optional(readers).await?;
    row.as_ref().map(row::id).transpose()
}

pub async fn events(readers: &SqlitePool, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query("SELECT * FROM generation_events WHERE generation_id = ? AND seq > ? ORDER BY seq")
        .bind(&id.as_bytes()[..])
        .bind(after)
        .fetch_all(readers)
        .await?;
    rows.iter().map(|row| row::event(id, row)).collect()
}

pub async fn overdue_for_deletion(store: &SqliteStore, limit: usize) -> Result<Vec<Record>, StoreError> {
    let mut rows = sqlx::query("SELECT * FROM generations WHERE expires_at <= ? ORDER BY expires_at, id")
        .bind(store.clock.now_ms())
        .fetch(&store.readers);
    let mut overdue = Vec::new();
    while overdue.len() < limit
        && let Some(row) = rows.try_next().await?
    {
        overdue.extend(row::readable(&row));
    }
    Ok(overdue)
}

pub async fn counts(readers: &SqlitePool) -> Result<Counts, StoreError> {
    let row = sqlx::query(COUNTS).fetch_one(readers).await?;
    Ok(Counts { queued: row::size(row.try_get("queued")?), running: row::size(row.try_get("running")?) })
}

pub async fn counts_of(readers: &SqlitePool, tenant: &str) -> Result<Counts, StoreError> {
    let row = sqlx::query(COUNTS_OF).bind(tenant).fetch_one(readers).await?;
    Ok(Counts { queued: row::size(row.try_get("queued")?), running: row::size(row.try_get("running")?) })
}

pub async fn workload(store: &SqliteStore, lately: Duration, slots: usize) -> Result<Workload, StoreError> {
    let since = store.clock.now_ms() - row::millis(lately);
    let row = sqlx::query(WORKLOAD).bind(since).bind(slots as i64).fetch_one(&store.readers).await?;
    Ok(Workload { cost: row.try_get("cost")?, speed: row.try_get("speed")? })
}

pub async fn place(readers: &SqlitePool, id: GenerationId) -> Result<Option<Place>, StoreError> {
    let row = sqlx::query(PLACE).bind(&id.as_bytes()[..]).fetch_optional(readers).await?;
    let place =
        |row: SqliteRow| Ok(Place { position: row::size(row.try_get("position")?), cost: row.try_get("cost")? });
    row.map(place).transpose()
}

/// Without progress and previews, which no other process could have.
pub async fn glance(readers: &SqlitePool, ids: &[GenerationId]) -> Result<Vec<Glance>, StoreError> {
    let mut seen = Vec::with_capacity(ids.len());
    for id in ids {
        let row = sqlx::query(
            "SELECT finished_at IS NOT NULL AS is_over,
                    (SELECT max(seq) FROM generation_events WHERE generation_id = generations.id) AS last_event
             FROM generations WHERE id = ?",
        )
        .bind(&id.as_bytes()[..])
        .fetch_optional(readers)
        .await?;
        if let Some(row) = row {
            let (last_event, is_over) = (row.try_get("last_event")?, row.try_get("is_over")?);
            seen.push(Glance { id: *id, last_event, is_over, progress: None, previews: Vec::new() });
        }
    }
    Ok(seen)
}

pub async fn ping(readers: &SqlitePool) -> Result<(), StoreError> {
    sqlx::query("SELECT 1 FROM generations LIMIT 1").fetch_optional(readers).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{empty, plan},
        *,
    };

    #[tokio::test]
    async fn counts_read_only_indexes() {
        let (_dir, store) = empty().await;
        for counts in [COUNTS, COUNTS_OF] {
            let counts = plan(&store, counts).await;
            assert_eq!(counts.matches("SEARCH generations USING COVERING INDEX").count(), 2, "{counts}");
        }
        let workload = plan(&store, WORKLOAD).await;
        assert!(workload.contains("SEARCH generations USING COVERING INDEX generations_status"), "{workload}");
        let place = plan(&store, PLACE).await;
        assert_eq!(place.matches("SEARCH other USING COVERING INDEX generations_claim").count(), 2, "{place}");
        assert_eq!(place.matches("SEARCH other USING INDEX generations_claim").count(), 2, "{place}");
        assert!(place.contains("SEARCH this USING INDEX"), "{place}");
    }

    #[tokio::test]
    async fn every_list_walks_an_index_in_its_order() {
        let (_dir, store) = empty().await;
        let id = GenerationId::new();
        let word = || Some("word".to_owned());
        for bits in 0..64 {
            let query = ListQuery {
                limit: 20,
                after: (bits & 1 != 0).then_some(id),
                before: (bits & 2 != 0).then_some(id),
                status: word().filter(|_| bits & 4 != 0),
                model: word().filter(|_| bits & 8 != 0),
                tenant: word().filter(|_| bits & 16 != 0),
                dead: bits & 32 != 0,
            };
            for ascending in [false, true] {
                let plan = plan(&store, list_sql(&query, ascending).sql().as_str()).await;
                assert!(plan.contains("generations USING INDEX"), "{query:?}: {plan}");
                assert!(!plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
                let narrow = query.status.is_some() || query.model.is_some() || query.tenant.is_some();
                let whole = plan.contains("SCAN") || plan.contains("sqlite_autoindex");
                assert!(!(narrow && whole) || plan.contains("generations_dead"), "{query:?}: {plan}");
                assert_eq!(plan.contains("generations_dead"), query.dead, "{query:?}: {plan}");
            }
        }
    }
}
