//! Everything that only reads.

use std::time::Duration;

use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};

use crate::generation::{Event, GenerationId, Record};
use crate::ledger::{Counts, ListQuery, Page, Place, StoreError, Workload};

use super::{PgStore, row};

pub async fn get(store: &PgStore, id: GenerationId) -> Result<Option<Record>, StoreError> {
    let mut loan = store.lend().await?;
    let sql = concat!("SELECT ", row::columns!(), " FROM generations WHERE id = $1");
    let row = sqlx::query(sql).bind(row::uuid(id)).fetch_optional(&mut *loan).await?;
    loan.give_back();
    row.as_ref().map(row::record).transpose()
}

pub async fn list(store: &PgStore, query: &ListQuery) -> Result<Page, StoreError> {
    // No model has such a name, and PostgreSQL no such text.
    if query.model.as_ref().is_some_and(|model| model.contains('\0')) {
        return Ok(Page { records: Vec::new(), has_more: false });
    }
    // Towards newer generations the page next to the cursor is wanted, so that is the direction to walk.
    let ascending = query.before.is_some() && query.after.is_none();
    let (mut query, mut records) = (query.clone(), Vec::new());
    let mut loan = store.lend().await?;
    // Rows that cannot be read are passed over, so that it may take more than one look.
    let has_more = loop {
        let wanted = query.limit.saturating_add(1) - records.len();
        let rows = list_sql(&query, ascending, wanted).build().fetch_all(&mut *loan).await?;
        let Some(last) = rows.last() else { break false };
        *(if ascending { &mut query.before } else { &mut query.after }) = Some(row::id(last)?);
        records.extend(rows.iter().filter_map(row::readable));
        if records.len() > query.limit {
            break true;
        }
        if rows.len() < wanted {
            break false;
        }
    };
    loan.give_back();
    records.truncate(query.limit);
    if ascending {
        records.reverse();
    }
    Ok(Page { records, has_more })
}

/// Only the filters that are asked for, since a condition with a way out ("or there is no filter") would use no index.
fn list_sql(query: &ListQuery, ascending: bool, limit: usize) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(concat!("SELECT ", row::columns!(), " FROM generations WHERE true"));
    if let Some(after) = query.after {
        sql.push(" AND id < ").push_bind(row::uuid(after));
    }
    if let Some(before) = query.before {
        sql.push(" AND id > ").push_bind(row::uuid(before));
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
    sql.push(if ascending { " ORDER BY id LIMIT " } else { " ORDER BY id DESC LIMIT " });
    sql.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    sql
}

pub async fn find_input(store: &PgStore, tenant: &str, sha256: &str) -> Result<Option<GenerationId>, StoreError> {
    let newest = "SELECT generation_id AS id FROM generation_inputs JOIN generations ON generations.id = generation_id
         WHERE sha256 = $1 AND tenant_id = $2 ORDER BY generation_id DESC LIMIT 1";
    let mut loan = store.lend().await?;
    let row = sqlx::query(newest).bind(sha256).bind(tenant).fetch_optional(&mut *loan).await?;
    loan.give_back();
    row.as_ref().map(row::id).transpose()
}

pub async fn events(store: &PgStore, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError> {
    let mut loan = store.lend().await?;
    let sql = "SELECT seq, kind, data FROM generation_events WHERE generation_id = $1 AND seq > $2 ORDER BY seq";
    let rows = sqlx::query(sql).bind(row::uuid(id)).bind(after).fetch_all(&mut *loan).await?;
    loan.give_back();
    rows.iter().map(|row| row::event(id, row)).collect()
}

pub async fn overdue_for_deletion(store: &PgStore, limit: usize) -> Result<Vec<Record>, StoreError> {
    let mut loan = store.lend().await?;
    let (mut overdue, mut seen) = (Vec::new(), 0);
    while overdue.len() < limit {
        let wanted = limit - overdue.len();
        let rows = sqlx::query(concat!(
            "SELECT ",
            row::columns!(),
            " FROM generations WHERE expires_at <= statement_timestamp() ORDER BY expires_at, id LIMIT $1 OFFSET $2"
        ))
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .bind(seen)
        .fetch_all(&mut *loan)
        .await?;
        overdue.extend(rows.iter().filter_map(row::readable));
        seen += rows.len() as i64;
        if rows.len() < wanted {
            break;
        }
    }
    loan.give_back();
    Ok(overdue)
}

pub async fn counts(store: &PgStore) -> Result<Counts, StoreError> {
    let mut loan = store.lend().await?;
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'running') AS running
         FROM generations WHERE status IN ('queued', 'running')",
    )
    .fetch_one(&mut *loan)
    .await?;
    loan.give_back();
    Ok(Counts { queued: row::size(row.try_get("queued")?), running: row::size(row.try_get("running")?) })
}

pub async fn counts_of(store: &PgStore, tenant: &str) -> Result<Counts, StoreError> {
    let mut loan = store.lend().await?;
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'running') AS running
         FROM generations WHERE status IN ('queued', 'running') AND tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(&mut *loan)
    .await?;
    loan.give_back();
    Ok(Counts { queued: row::size(row.try_get("queued")?), running: row::size(row.try_get("running")?) })
}

pub async fn workload(store: &PgStore, lately: Duration, slots: usize) -> Result<Workload, StoreError> {
    let mut loan = store.lend().await?;
    let row = sqlx::query(
        "WITH open AS (SELECT cost FROM generations WHERE status IN ('queued', 'running')),
              live AS (SELECT count(*) * $2 AS slots, coalesce(sum(speed), 0) AS speed
                       FROM workers WHERE beaten_at > statement_timestamp() - $1),
              first AS (SELECT cost FROM open ORDER BY cost
                        LIMIT (SELECT greatest(0, (SELECT count(*) FROM open) + 1 - slots) FROM live))
         SELECT (SELECT speed FROM live) AS speed,
                coalesce(sum(cost), 0) + (SELECT greatest(0, slots - 1) FROM live) * coalesce(max(cost), 0) AS cost FROM first",
    )
    .bind(row::interval(lately))
    .bind(slots as i64)
    .fetch_one(&mut *loan)
    .await?;
    loan.give_back();
    Ok(Workload { cost: row.try_get("cost")?, speed: row.try_get("speed")? })
}

pub async fn place(store: &PgStore, id: GenerationId) -> Result<Option<Place>, StoreError> {
    let mut loan = store.lend().await?;
    let row = sqlx::query(
        "SELECT urgent.position + older.position AS position, urgent.cost + older.cost AS cost
         FROM generations AS this,
              LATERAL (SELECT count(*) AS position, coalesce(sum(other.cost), 0) AS cost FROM generations AS other
                       WHERE other.status = 'queued' AND other.priority > this.priority) AS urgent,
              LATERAL (SELECT count(*) AS position, coalesce(sum(other.cost), 0) AS cost FROM generations AS other
                       WHERE other.status = 'queued' AND other.priority = this.priority
                           AND (other.vft, other.id) < (this.vft, this.id)) AS older
         WHERE this.id = $1 AND this.status = 'queued'",
    )
    .bind(row::uuid(id))
    .fetch_optional(&mut *loan)
    .await?;
    loan.give_back();
    let place = |row: PgRow| Ok(Place { position: row::size(row.try_get("position")?), cost: row.try_get("cost")? });
    row.map(place).transpose()
}
