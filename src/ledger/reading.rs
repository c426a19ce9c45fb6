//! Everything that only reads.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Counts, Ledger, ListQuery, Page, Place, Reads, StoreError, Workload,
    change::columns,
    dialect::{Columns, Dialect, Value, values},
    record::{event, readable, record},
};
use crate::generation::{Event, GenerationId, Record};

pub(super) const COUNTS: &str = "
    SELECT (SELECT count(*) FROM generations WHERE status = 'queued') AS queued,
           (SELECT count(*) FROM generations WHERE status = 'running') AS running";

pub(super) const COUNTS_OF: &str = "
    SELECT (SELECT count(*) FROM generations WHERE status = 'queued' AND tenant_id = $1) AS queued,
           (SELECT count(*) FROM generations WHERE status = 'running' AND tenant_id = $1) AS running";

pub(super) const WORKLOAD: &str = "
    WITH open AS (SELECT cost FROM generations WHERE status IN ('queued', 'running')),
         live AS (SELECT count(*) * $2 AS slots, coalesce(sum(speed), 0.0) AS speed FROM workers
                  WHERE beaten_at > now() - $1),
         first AS (SELECT cost FROM open ORDER BY cost
                   LIMIT (SELECT greatest(0, (SELECT count(*) FROM open) + 1 - slots) FROM live))
    SELECT (SELECT speed FROM live) AS speed,
        coalesce(sum(cost), 0.0) + (SELECT greatest(0, slots - 1) FROM live) * coalesce(max(cost), 0.0) AS cost FROM first";

/// Two looks, since one with "or" would find no start in the index.
pub(super) const PLACE: &str = "
    WITH this AS (SELECT id, priority, vft FROM generations WHERE id = $1 AND status = 'queued'),
         ahead AS (
             SELECT other.cost FROM this JOIN generations AS other INDEXED BY generations_claim
                 ON other.status = 'queued' AND other.priority > this.priority
             UNION ALL
             SELECT other.cost FROM this JOIN generations AS other INDEXED BY generations_claim
                 ON other.status = 'queued' AND other.priority = this.priority
                    AND (other.vft, other.id) < (this.vft, this.id))
    SELECT count(ahead.cost) AS position, coalesce(sum(ahead.cost), 0.0) AS cost
    FROM this LEFT JOIN ahead ON true GROUP BY this.id";

#[async_trait]
impl<D: Dialect> Reads for Ledger<D> {
    async fn get(&self, id: GenerationId) -> Result<Option<Record>, StoreError> {
        let text = concat!("SELECT ", columns!(), " FROM generations WHERE id = $1");
        self.read_first(text, values![id]).await?.as_ref().map(record).transpose()
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        // No model has such a name, and PostgreSQL no such text.
        if query.model.as_ref().is_some_and(|model| model.contains('\0')) {
            return Ok(Page { records: Vec::new(), has_more: false });
        }
        // Towards newer generations the page next to the cursor is wanted, so that is the direction to walk.
        let ascending = query.before.is_some() && query.after.is_none();
        let (mut query, mut records) = (query.clone(), Vec::new());
        // Rows that cannot be read are passed over, so that it may take more than one look.
        let has_more = loop {
            let wanted = query.limit.saturating_add(1) - records.len();
            let (text, values) = listing(&query, ascending, wanted);
            let rows = self.read(&text, values).await?;
            let Some(last) = rows.last() else { break false };
            *(if ascending { &mut query.before } else { &mut query.after }) = Some(last.get("id")?);
            records.extend(rows.iter().filter_map(readable));
            if records.len() > query.limit {
                break true;
            }
            if rows.len() < wanted {
                break false;
            }
        };
        records.truncate(query.limit);
        if ascending {
            records.reverse();
        }
        Ok(Page { records, has_more })
    }

    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>, StoreError> {
        let text = "SELECT seq, kind, data FROM generation_events WHERE generation_id = $1 AND seq > $2 ORDER BY seq";
        self.read(text, values![id, after]).await?.iter().map(|row| event(id, row)).collect()
    }

    async fn find_input(&self, tenant: &str, sha256: &str) -> Result<Option<GenerationId>, StoreError> {
        let newest = "SELECT generation_id FROM generation_inputs JOIN generations ON generations.id = generation_id
             WHERE sha256 = $1 AND tenant_id = $2 ORDER BY generation_id DESC LIMIT 1";
        let row = self.read_first(newest, values![sha256, tenant]).await?;
        Ok(row.map(|row| row.get("generation_id")).transpose()?)
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.count(COUNTS, values![]).await
    }

    async fn counts_of(&self, tenant: &str) -> Result<Counts, StoreError> {
        self.count(COUNTS_OF, values![tenant]).await
    }

    async fn workload(&self, lately: Duration, slots: usize) -> Result<Workload, StoreError> {
        let row = self.read_one(WORKLOAD, values![lately, slots]).await?;
        Ok(Workload { cost: row.get("cost")?, speed: row.get("speed")? })
    }

    async fn place(&self, id: GenerationId) -> Result<Option<Place>, StoreError> {
        let row = self.read_first(PLACE, values![id]).await?;
        row.map(|row| Ok(Place { position: row.get("position")?, cost: row.get("cost")? })).transpose()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.db.bounded(|| self.db.ping()).await
    }
}

impl<D: Dialect> Ledger<D> {
    async fn count(&self, text: &str, values: Vec<Value>) -> Result<Counts, StoreError> {
        let row = self.read_one(text, values).await?;
        Ok(Counts { queued: row.get("queued")?, running: row.get("running")? })
    }
}

/// Only the filters that are asked for, since a condition with a way out ("or there is no filter") would use no index.
pub(super) fn listing(query: &ListQuery, ascending: bool, limit: usize) -> (String, Vec<Value>) {
    // Few are dead, which SQLite's planner does not know.
    let index = if query.dead { " INDEXED BY generations_dead" } else { "" };
    let mut text = format!(concat!("SELECT ", columns!(), " FROM generations{} WHERE true"), index);
    let mut values = Vec::new();
    let filters: [(&str, Option<Value>); 5] = [
        ("id <", query.after.map(Value::from)),
        ("id >", query.before.map(Value::from)),
        ("status =", query.status.as_ref().map(Value::from)),
        ("model =", query.model.as_ref().map(Value::from)),
        ("tenant_id =", query.tenant.as_ref().map(Value::from)),
    ];
    for (filter, value) in filters {
        if let Some(value) = value {
            values.push(value);
            text += &format!(" AND {filter} ${}", values.len());
        }
    }
    values.push(limit.into());
    let (dead, order) = (if query.dead { " AND dead" } else { "" }, if ascending { "" } else { " DESC" });
    text += &format!("{dead} ORDER BY id{order} LIMIT ${}", values.len());
    (text, values)
}
