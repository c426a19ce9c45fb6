//! One change: a transaction that moves generations from state to state and tells of it in events.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{
    Ledger, StoreError,
    dialect::{Columns, Dialect, Value, values},
};
use crate::generation::{Artifact, EventKind, GenerationId, Problem};

/// What [`record`](super::record::record) reads, by name: a statement that took all columns there are would fail on every open
/// connection as soon as a newer program adds one.
macro_rules! columns {
    () => {
        "id, tenant_id, params, status, attempt, fence, crash_count, dead, cancel_requested_at, created_at, started_at, \
         finished_at, expires_at, version, artifacts, problem, vft, fingerprint"
    };
}

/// One transaction, made again where others were in its way: what its block says is done as a whole or not at all.
macro_rules! atomically {
    ($ledger:expr, |$change:ident| $work:expr) => {
        $ledger
            .db
            .bounded(|| async {
                let mut $change = $ledger.begin(false).await?;
                let done: Result<_, StoreError> = async { $work }.await;
                $change.conclude(done).await
            })
            .await
    };
}

pub(super) use {atomically, columns};

/// A transaction. Dropped before [`Change::conclude`], it leaves nothing behind.
pub struct Change<D: Dialect> {
    transaction: D::Transaction,
    /// How long what ends now is kept.
    pub retention: Duration,
}

/// What becomes of one active generation.
pub struct Step<'a> {
    pub id: GenerationId,
    /// So many processes ended while it ran, besides those that are counted already.
    pub crashes: u32,
    pub to: Move<'a>,
}

pub enum Move<'a> {
    Succeeded(&'a [Artifact]),
    Failed(&'a Problem),
    /// Failed, and marked for an operator to look at.
    GivenUp(&'a Problem),
    Canceled,
    Expired,
    /// Back to the queue, to be claimed after the delay. `uncounted` attempts are taken back from its count.
    Queued {
        delay: Duration,
        uncounted: u32,
        reason: &'a str,
    },
}

/// A step as a row of the statement that makes it.
#[derive(Serialize)]
struct StepRow<'a> {
    step_id: String,
    new_status: &'static str,
    crashes: u32,
    uncounted: u32,
    given_up: bool,
    made: Option<&'a [Artifact]>,
    why: Option<&'a Problem>,
    delay_ms: Option<u64>,
}

pub(super) const SET_STATE: &str = concat!(
    "UPDATE generations
     SET status = new_status, attempt = attempt - uncounted, crash_count = crash_count + crashes, dead = given_up,
         artifacts = made, problem = why, version = version + 1, lease_owner = NULL, lease_expires_at = NULL,
         run_at = CASE WHEN delay_ms IS NULL THEN run_at ELSE now() + delay_ms * $2 END,
         finished_at = CASE WHEN delay_ms IS NULL THEN now() END,
         expires_at = CASE WHEN delay_ms IS NULL THEN now() + $3 END
     FROM jsonb_to_recordset($1) AS step (step_id uuid, new_status text, crashes integer, uncounted integer,
         given_up boolean, made jsonb, why jsonb, delay_ms double precision)
     WHERE id = step_id AND finished_at IS NULL
     RETURNING ",
    columns!()
);

impl<D: Dialect> Ledger<D> {
    /// `walks` as in [`Dialect::begin`].
    pub(super) async fn begin(&self, walks: bool) -> Result<Change<D>, StoreError> {
        Ok(Change { transaction: self.db.begin(walks).await?, retention: self.retention })
    }
}

impl<D: Dialect> Change<D> {
    /// Commits what was done, or undoes it where something failed.
    pub async fn conclude<T>(self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        let concluded = D::conclude(self.transaction, done.is_ok()).await;
        let done = done?;
        concluded.map(|()| done)
    }

    pub async fn fetch(&mut self, text: &str, values: Vec<Value>) -> Result<Vec<D::Row>, StoreError> {
        D::fetch(&mut self.transaction, text, &values).await
    }

    pub async fn first(&mut self, text: &str, values: Vec<Value>) -> Result<Option<D::Row>, StoreError> {
        Ok(self.fetch(text, values).await?.into_iter().next())
    }

    pub async fn one(&mut self, text: &str, values: Vec<Value>) -> Result<D::Row, StoreError> {
        Ok(self.first(text, values).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    pub async fn find(&mut self, id: GenerationId) -> Result<Option<D::Row>, StoreError> {
        self.first(concat!("SELECT ", columns!(), " FROM generations WHERE id = $1"), values![id]).await
    }

    /// Reads a generation and keeps others from changing it.
    pub async fn lock(&mut self, id: GenerationId) -> Result<Option<D::Row>, StoreError> {
        let text = concat!("SELECT ", columns!(), " FROM generations WHERE id = $1 FOR NO KEY UPDATE");
        self.first(text, values![id]).await
    }

    /// Moves one active generation that this change holds.
    pub async fn step(&mut self, id: GenerationId, to: Move<'_>) -> Result<D::Row, StoreError> {
        let moved = self.set_state(&[Step { id, crashes: 0, to }]).await?;
        Ok(moved.into_iter().next().ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Moves active generations that this change holds, each with its event. From a final state no step leads.
    pub async fn set_state(&mut self, steps: &[Step<'_>]) -> Result<Vec<D::Row>, StoreError> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let table = Value::json(&steps.iter().map(Step::row).collect::<Vec<_>>())?;
        let moved = self.fetch(SET_STATE, values![table, Duration::from_millis(1), self.retention]).await?;
        let moved = moved.into_iter().map(|row| Ok((row.get("id")?, row)));
        let mut moved: HashMap<GenerationId, D::Row> = moved.collect::<Result<_, sqlx::Error>>()?;
        let (mut rows, mut kinds, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            let Some(row) = moved.remove(&step.id) else { continue };
            let attempt: u32 = row.get("attempt")?;
            let kind = step.to.kind();
            told.push((step.id, kind, step.to.told(step.id, attempt)));
            kinds.push(kind);
            rows.push(row);
        }
        self.forget(steps).await?;
        self.append(&told).await?;
        for (row, kind) in rows.iter().zip(kinds) {
            self.enqueue(row, kind).await?;
        }
        Ok(rows)
    }

    /// Nobody watches an attempt that is over.
    async fn forget(&mut self, steps: &[Step<'_>]) -> Result<(), StoreError> {
        if D::IS_SHARED {
            let ids: Vec<_> = steps.iter().map(|step| step.id).collect();
            let forget = "WITH forgotten AS (DELETE FROM artifact_previews WHERE generation_id = ANY($1))
                DELETE FROM generation_progress WHERE generation_id = ANY($1)";
            self.fetch(forget, values![Value::ids(&ids)]).await?;
        }
        Ok(())
    }

    /// Appends an event to each of these generations, whose rows this change holds: so the numbers have no gaps.
    pub async fn append(&mut self, told: &[(GenerationId, EventKind, Json)]) -> Result<(), StoreError> {
        let row = |(id, kind, data): &(GenerationId, EventKind, Json)| json!({"told_id": hex(*id), "told_kind": kind.as_str(), "told_data": data});
        self.fetch(
            "INSERT INTO generation_events (generation_id, seq, kind, data, at)
             SELECT told_id, 1 + (SELECT coalesce(max(seq), 0) FROM generation_events WHERE generation_id = told_id), told_kind,
                 told_data, now()
             FROM jsonb_to_recordset($1) AS told (told_id uuid, told_kind text, told_data jsonb)",
            vec![Value::json(&told.iter().map(row).collect::<Vec<_>>())?],
        )
        .await?;
        Ok(())
    }
}

impl Step<'_> {
    fn row(&self) -> StepRow<'_> {
        let (mut made, mut why, mut delay_ms, mut taken_back) = (None, None, None, 0);
        match &self.to {
            Move::Succeeded(artifacts) => made = Some(*artifacts),
            Move::Failed(problem) | Move::GivenUp(problem) => why = Some(*problem),
            Move::Canceled | Move::Expired => {}
            Move::Queued { delay, uncounted, .. } => {
                delay_ms = u64::try_from(Value::span(*delay).as_millis()).ok();
                taken_back = *uncounted;
            }
        }
        StepRow {
            step_id: hex(self.id),
            new_status: self.to.status(),
            crashes: self.crashes,
            uncounted: taken_back,
            given_up: matches!(self.to, Move::GivenUp(_)),
            made,
            why,
            delay_ms,
        }
    }
}

impl Move<'_> {
    fn status(&self) -> &'static str {
        match self {
            Move::Succeeded(_) => "succeeded",
            Move::Failed(_) | Move::GivenUp(_) => "failed",
            Move::Canceled => "canceled",
            Move::Expired => "expired",
            Move::Queued { .. } => "queued",
        }
    }

    fn kind(&self) -> EventKind {
        match self {
            Move::Succeeded(_) => EventKind::Succeeded,
            Move::Failed(_) | Move::GivenUp(_) => EventKind::Failed,
            Move::Canceled => EventKind::Canceled,
            Move::Expired => EventKind::Expired,
            Move::Queued { .. } => EventKind::Retrying,
        }
    }

    /// What the event of this move tells.
    fn told(&self, id: GenerationId, attempt: u32) -> Json {
        match self {
            Move::Queued { reason, .. } => json!({"id": id, "attempt": attempt, "reason": reason}),
            ending => json!({"id": id, "status": ending.status()}),
        }
    }
}

/// An id as it stands in a table that goes to the database as JSON.
pub fn hex(id: GenerationId) -> String {
    sqlx::types::Uuid::from_bytes(*id.as_bytes()).simple().to_string()
}
