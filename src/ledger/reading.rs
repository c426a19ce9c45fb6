//! Reads generations, their events, and the state of the queue.

use async_trait::async_trait;
use serde_json::json;

use super::{
    Counts, Crew, Ledger, ListQuery, Newcomer, Page, QueuePosition, Result, Workload,
    change::{COLUMNS, hex},
    dialect::{Value, values},
    record::{event, readable, record},
    row::{Row, from_row},
};
use crate::generation::{Event, GenerationId, Record, TenantEvent};

/// The methods of the ledger that only read.
#[async_trait]
pub trait Reads: AsRef<Ledger> + Send + Sync + 'static {
    async fn get(&self, id: GenerationId) -> Result<Option<Record>> {
        let text = format!("SELECT {COLUMNS} FROM generations WHERE id = $1");
        self.as_ref().read(&text, values![id]).await?.pop().as_ref().map(record).transpose()
    }

    /// A page of records, newest first. Unreadable rows are skipped.
    async fn list(&self, query: &ListQuery) -> Result<Page> {
        // No model's name contains a zero byte, and PostgreSQL refuses such a text.
        if query.model.as_ref().is_some_and(|model| model.contains('\0')) {
            return Ok(Page { records: Vec::new(), has_more: false });
        }
        // With `before` alone, the page has the generations nearest to `before`, so rows are read in ascending order.
        let ascending = query.before.is_some() && query.after.is_none();
        let (mut query, mut records) = (query.clone(), Vec::new());
        // Unreadable rows are skipped, so a full page may take several reads.
        let has_more = loop {
            let wanted = query.limit.saturating_add(1) - records.len();
            let (text, values) = listing(&query, ascending, wanted);
            let rows = self.as_ref().read(&text, values).await?;
            let Some(last) = rows.last() else { break false };
            *(if ascending { &mut query.before } else { &mut query.after }) = Some(last.get("id")?);
            records.extend(rows.iter().filter_map(readable));
            if records.len() > query.limit || rows.len() < wanted {
                break records.len() > query.limit;
            }
        };
        records.truncate(query.limit);
        if ascending {
            records.reverse();
        }
        Ok(Page { records, has_more })
    }

    /// The events with a number greater than `after`, in order. Empty for an unknown generation.
    async fn events(&self, id: GenerationId, after: i64) -> Result<Vec<Event>> {
        let text = "SELECT seq, kind, data FROM generation_events WHERE generation_id = $1 AND seq > $2 ORDER BY seq";
        self.as_ref().read(text, values![id, after]).await?.iter().map(|row| event(id, row)).collect()
    }

    /// Events of this tenant whose number (`tenant_seq`) is greater than `after`, in the order of these numbers, at
    /// most `limit`. Events of erased generations are gone; unreadable ones have only their number.
    async fn events_of(&self, tenant: &str, after: i64, limit: usize) -> Result<Vec<TenantEvent>> {
        let text = "SELECT tenant_seq, generation_id, seq, kind, data FROM generation_events
             WHERE tenant_id = $1 AND tenant_seq > $2 ORDER BY tenant_seq LIMIT $3";
        let rows = self.as_ref().read(text, values![tenant, after, limit]).await?;
        let read = |row: &Row| -> Result<(GenerationId, Event)> {
            let id = row.get("generation_id")?;
            event(id, row).map(|event| (id, event))
        };
        let read = |row: &Row| read(row).inspect_err(|error| tracing::error!(%error, "an event is skipped")).ok();
        rows.iter().map(|row| Ok(TenantEvent { number: row.get("tenant_seq")?, event: read(row) })).collect()
    }

    /// The number of this tenant's last event; 0 if the tenant has none.
    async fn last_event_of(&self, tenant: &str) -> Result<i64> {
        let row = self.as_ref().read("SELECT last_event FROM tenants WHERE id = $1", values![tenant]).await?.pop();
        Ok(row.map(|row| row.get("last_event")).transpose()?.unwrap_or(0))
    }

    /// The newest generation of this tenant whose request contained the picture with this SHA-256.
    async fn find_input(&self, tenant: &str, sha256: &str) -> Result<Option<GenerationId>> {
        let newest = "SELECT generation_id FROM generation_inputs JOIN generations ON generations.id = generation_id
             WHERE sha256 = $1 AND tenant_id = $2 ORDER BY generation_id DESC LIMIT 1";
        let row = self.as_ref().read(newest, values![sha256, tenant]).await?.pop();
        Ok(row.map(|row| row.get("generation_id")).transpose()?)
    }

    /// How many generations are queued and running.
    async fn counts(&self) -> Result<Counts> {
        self.as_ref().count("", values![]).await
    }

    /// How many generations of this tenant are queued and running.
    async fn counts_of(&self, tenant: &str) -> Result<Counts> {
        self.as_ref().count("AND tenant_id = $1", values![tenant]).await
    }

    /// The work that must be done before `newcomer` can begin, and the speed of the workers.
    async fn workload(&self, newcomer: &Newcomer<'_>, crew: &Crew<'_>) -> Result<Workload> {
        let Newcomer { tenant, priority, cost } = *newcomer;
        // The statement computes the place in the queue as `Change::take_place` does.
        let text = waiting(
            "SELECT $4 AS id, $5 AS priority, greatest(v, coalesce(vft, v)) + $6 / coalesce(weight, 1.0) AS vft
             FROM queue_clock LEFT JOIN tenants ON tenants.id = $7",
        );
        let mut values = crew.values()?;
        values.extend(values![GenerationId::new(), priority.rank(), cost, tenant]);
        let row = self.as_ref().read_one(&text, values).await?;
        Ok(from_row!(row => Workload { cost, speed }))
    }

    /// The place of a queued generation; `None` if the generation is not queued.
    async fn place(&self, id: GenerationId, crew: &Crew<'_>) -> Result<Option<QueuePosition>> {
        let text = waiting("SELECT id, priority, vft FROM generations WHERE id = $4 AND status = 'queued'");
        let mut values = crew.values()?;
        values.extend(values![id]);
        let row = self.as_ref().read_one(&text, values).await?;
        let place = from_row!(row => QueuePosition { position, cost });
        Ok(row.get::<bool>("is_there")?.then_some(place))
    }

    /// Checks that the store answers.
    async fn ping(&self) -> Result<()> {
        let ledger = self.as_ref();
        ledger.bounded(|| ledger.db.ping()).await
    }
}

impl Ledger {
    async fn count(&self, also: &str, values: Vec<Value>) -> Result<Counts> {
        let text = format!(
            "SELECT (SELECT count(*) FROM generations WHERE status = 'queued' {also}) AS queued,
             (SELECT count(*) FROM generations WHERE status = 'running' {also}) AS running"
        );
        let row = self.read_one(&text, values).await?;
        Ok(from_row!(row => Counts { queued, running }))
    }
}

impl Crew<'_> {
    /// The first three parameters of [`waiting`].
    fn values(&self) -> Result<Vec<Value>> {
        let told: Vec<_> = self.done.iter().map(|(id, share)| json!({"told_id": hex(*id), "share": share})).collect();
        Ok(values![self.lately, self.slots, Value::json(&told)?])
    }
}

/// The statement that estimates the wait of the generation that `this` selects; see [`Workload::cost`].
fn waiting(this: &str) -> String {
    // Two selects find the generations ahead, because a select with OR could not seek to a place in the index.
    format!(
        "WITH this AS MATERIALIZED ({this}),
             ahead AS MATERIALIZED (
                 SELECT other.cost FROM this CROSS JOIN generations AS other INDEXED BY generations_claim
                 WHERE other.status = 'queued' AND other.priority > this.priority
                 UNION ALL
                 SELECT other.cost FROM this CROSS JOIN generations AS other INDEXED BY generations_claim
                 WHERE other.status = 'queued' AND other.priority = this.priority
                     AND (other.vft, other.id) < (this.vft, this.id)),
             open AS (
                 SELECT cost FROM ahead
                 UNION ALL
                 SELECT cost * (1.0 - coalesce((
                     SELECT share FROM jsonb_to_recordset($3) AS told (told_id uuid, share double precision)
                     WHERE told_id = generations.id), 0.0))
                 FROM generations WHERE status = 'running'),
             live AS (SELECT count(*) * $2 AS slots, coalesce(sum(speed), 0.0) AS speed FROM workers
                      WHERE beaten_at > now() - $1),
             first AS (SELECT cost FROM open ORDER BY cost
                       LIMIT (SELECT greatest(0, (SELECT count(*) FROM open) + 1 - slots) FROM live))
        SELECT EXISTS (SELECT 1 FROM this) AS is_there, (SELECT count(*) FROM ahead) AS position,
            (SELECT speed FROM live) AS speed,
            coalesce(sum(cost), 0.0) + (SELECT greatest(0, slots - 1) FROM live) * coalesce(max(cost), 0.0) AS cost
        FROM first"
    )
}

/// The statement of a page, with only the filters that are set: `$1 IS NULL OR model = $1` would use no index.
fn listing(query: &ListQuery, ascending: bool, limit: usize) -> (String, Vec<Value>) {
    // SQLite's planner does not know that few generations are dead, so the index is named.
    let index = if query.dead { " INDEXED BY generations_dead" } else { "" };
    let mut text = format!("SELECT {COLUMNS} FROM generations{index} WHERE true");
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
    let starred = query.starred.map_or("", |starred| if starred { " AND starred" } else { " AND NOT starred" });
    // The kind is no parameter, so that the planners see that it fits the index of sounds or films.
    let kind = query.kind.map_or_else(String::new, |kind| format!(" AND kind = '{}'", kind.as_str()));
    text += &format!("{dead}{starred}{kind} ORDER BY id{order} LIMIT ${}", values.len());
    (text, values)
}
