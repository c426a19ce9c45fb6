//! One change: a transaction that changes the states of generations and appends the events.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value as Json, json};

use super::{
    Ledger, Result,
    dialect::{Transaction, Value, values},
    row::{Row, Unreadable},
};
use crate::generation::{Artifact, EventKind, GenerationId, Problem};

/// The columns that [`record`](super::record::record) reads. A statement with `*` would fail on every open connection
/// as soon as a newer program adds a column.
pub const COLUMNS: &str =
    "id, tenant_id, params, status, attempt, fence, crash_count, dead, cancel_requested_at, created_at, started_at,
     finished_at, expires_at, version, artifacts, problem, vft, fingerprint, starred";

/// Runs the block in one transaction, as a whole or not at all. Runs it again if other transactions conflict with it.
macro_rules! atomically {
    ($ledger:expr, |$change:ident| $work:expr) => {{
        let ledger: &Ledger = $ledger.as_ref();
        let attempt = || async {
            let mut $change = ledger.begin(false).await?;
            let done: Result<_> = async { $work }.await;
            $change.conclude(done).await
        };
        ledger.bounded(attempt).await
    }};
}

pub(super) use atomically;

/// A transaction. Dropping it before [`Change::conclude`] undoes everything.
pub struct Change {
    transaction: Box<dyn Transaction>,
    /// Whether other processes use the database at the same time.
    pub is_shared: bool,
    /// How long generations that end now are kept.
    pub retention: Duration,
}

/// A change of the state of one active generation.
pub struct Step<'a> {
    pub id: GenerationId,
    /// Number of crashes that this change adds to the generation's count.
    pub crashes: u32,
    pub to: Move<'a>,
}

/// The new state of a generation.
pub enum Move<'a> {
    Succeeded(&'a [Artifact]),
    Failed(&'a Problem),
    /// Failed after crashes, and marked as dead for an operator.
    GivenUp(Problem),
    Canceled,
    Expired,
    /// Back to the queue, to be claimed after `delay`. Subtracts `uncounted` from the number of attempts.
    Queued {
        delay: Duration,
        uncounted: u32,
        reason: &'a str,
    },
}

impl Ledger {
    /// For `walks`, see [`Dialect::begin`](super::dialect::Dialect::begin).
    pub(super) async fn begin(&self, walks: bool) -> Result<Change> {
        let transaction = self.db.begin(walks).await?;
        Ok(Change { transaction, is_shared: self.db.is_shared(), retention: self.retention })
    }
}

impl Change {
    /// Commits if `done` is `Ok`, otherwise rolls back.
    pub async fn conclude<T>(self, done: Result<T>) -> Result<T> {
        let concluded = self.transaction.conclude(done.is_ok()).await;
        let done = done?;
        concluded.map(|()| done)
    }

    pub async fn fetch(&mut self, text: &str, values: Vec<Value>) -> Result<Vec<Row>> {
        self.transaction.fetch(text, &values).await
    }

    pub async fn one(&mut self, text: &str, values: Vec<Value>) -> Result<Row> {
        Ok(self.fetch(text, values).await?.pop().ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Reads a generation and locks its row.
    pub async fn lock(&mut self, id: GenerationId) -> Result<Option<Row>> {
        let text = format!("SELECT {COLUMNS} FROM generations WHERE id = $1 FOR NO KEY UPDATE");
        Ok(self.fetch(&text, values![id]).await?.pop())
    }

    /// Changes the state of one active generation, whose row this change has locked.
    pub async fn step(&mut self, id: GenerationId, to: Move<'_>) -> Result<Row> {
        Ok(self.set_state(&[Step { id, crashes: 0, to }]).await?.pop().ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Changes the states of generations, whose rows are locked, and appends the events. Skips finished generations.
    pub async fn set_state(&mut self, steps: &[Step<'_>]) -> Result<Vec<Row>> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let table = Value::json(&steps.iter().map(Step::row).collect::<Vec<_>>())?;
        let text = format!(
            "UPDATE generations
             SET status = new_status, attempt = attempt - uncounted, crash_count = crash_count + crashes,
                 dead = given_up, artifacts = made, problem = why, version = version + 1, lease_owner = NULL,
                 lease_expires_at = NULL,
                 run_at = CASE WHEN delay_ms IS NULL THEN run_at ELSE now() + delay_ms * $2 END,
                 finished_at = CASE WHEN delay_ms IS NULL THEN now() END,
                 expires_at = CASE WHEN delay_ms IS NULL THEN now() + $3 END
             FROM jsonb_to_recordset($1) AS step (step_id uuid, new_status text, crashes integer, uncounted integer,
                 given_up boolean, made jsonb, why jsonb, delay_ms double precision)
             WHERE id = step_id AND finished_at IS NULL RETURNING {COLUMNS}"
        );
        let mut moved = by_id(self.fetch(&text, values![table, Duration::from_millis(1), self.retention]).await?)?;
        let (mut rows, mut told) = (Vec::new(), Vec::new());
        for Step { id, to, .. } in steps {
            let Some(row) = moved.remove(id) else { continue };
            let (status, kind) = to.names();
            let about = match to {
                Move::Queued { reason, .. } => {
                    json!({"id": id, "attempt": row.get::<u32>("attempt")?, "reason": reason})
                }
                _ => json!({"id": id, "status": status}),
            };
            told.push((*id, kind, about));
            rows.push(row);
        }
        if self.is_shared {
            // Nobody needs the progress and previews of an attempt that is over.
            let ids: Vec<_> = steps.iter().map(|step| step.id).collect();
            let forget = "WITH forgotten AS (DELETE FROM artifact_previews WHERE generation_id = ANY($1))
                 DELETE FROM generation_progress WHERE generation_id = ANY($1)";
            self.fetch(forget, values![Value::ids(&ids)]).await?;
        }
        self.append(&told).await?;
        for (row, (_, kind, _)) in rows.iter().zip(told) {
            self.enqueue(row, kind).await?;
        }
        Ok(rows)
    }

    /// Appends an event to each of these generations. Their rows are locked, so the event numbers have no gaps. The
    /// database also numbers the events of each tenant. This numbering locks the tenants' rows, always in one order.
    pub async fn append(&mut self, told: &[(GenerationId, EventKind, Json)]) -> Result<()> {
        let row = |(id, kind, data): &(GenerationId, EventKind, Json)| -> Json {
            json!({"told_id": hex(*id), "told_kind": kind, "told_data": data})
        };
        let table = Value::json(&told.iter().map(row).collect::<Vec<_>>())?;
        let text = "INSERT INTO generation_events (generation_id, seq, kind, data, at)
             SELECT told_id, 1 + (SELECT coalesce(max(seq), 0) FROM generation_events WHERE generation_id = told_id),
                 told_kind, told_data, now()
             FROM jsonb_to_recordset($1) AS told (told_id uuid, told_kind text, told_data jsonb)
             ORDER BY (SELECT tenant_id FROM generations WHERE id = told_id)";
        self.fetch(text, values![table]).await.map(drop)
    }
}

impl Step<'_> {
    /// A row of the table that [`Change::set_state`] passes. Absent columns are NULL.
    fn row(&self) -> Json {
        let mut row = json!({
            "step_id": hex(self.id), "new_status": self.to.names().0, "crashes": self.crashes, "uncounted": 0,
            "given_up": false
        });
        match &self.to {
            Move::Succeeded(artifacts) => row["made"] = json!(artifacts),
            Move::Failed(problem) => row["why"] = json!(problem),
            Move::GivenUp(problem) => (row["why"], row["given_up"]) = (json!(problem), true.into()),
            Move::Canceled | Move::Expired => {}
            Move::Queued { delay, uncounted, .. } => {
                row["delay_ms"] = json!(u64::try_from(Value::span(*delay).as_millis()).ok());
                row["uncounted"] = json!(uncounted);
            }
        }
        row
    }
}

impl Move<'_> {
    /// The new status, and the kind of its event.
    fn names(&self) -> (&'static str, EventKind) {
        match self {
            Move::Succeeded(_) => ("succeeded", EventKind::Succeeded),
            Move::Failed(_) | Move::GivenUp(_) => ("failed", EventKind::Failed),
            Move::Canceled => ("canceled", EventKind::Canceled),
            Move::Expired => ("expired", EventKind::Expired),
            Move::Queued { .. } => ("queued", EventKind::Retrying),
        }
    }
}

/// The rows by id, because a statement returns them in any order.
pub fn by_id(rows: Vec<Row>) -> Result<HashMap<GenerationId, Row>, Unreadable> {
    rows.into_iter().map(|row| Ok((row.get("id")?, row))).collect()
}

/// The form of an id in the JSON tables that statements receive.
pub fn hex(id: GenerationId) -> String {
    sqlx::types::Uuid::from_bytes(*id.as_bytes()).simple().to_string()
}
