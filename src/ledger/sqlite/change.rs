//! One change: a write transaction that moves generations from state to state and tells of it in events.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Row, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};

use crate::generation::{Artifact, EventKind, GenerationId, Problem};
use crate::ledger::StoreError;

use super::{SqliteStore, row, webhooks};

/// A write transaction. Dropped before [`Change::commit`], be it by an error or with the future that held it, it leaves
/// nothing behind: sqlx sends a ROLLBACK before the connection is lent again.
pub struct Change {
    transaction: Transaction<'static, Sqlite>,
    /// Milliseconds since 1970: the time of everything this transaction writes.
    pub now: i64,
    retention: Duration,
}

/// A final state.
pub enum Ending {
    Succeeded(Vec<Artifact>),
    Failed(Problem),
    Canceled,
    Expired,
}

impl Change {
    /// `IMMEDIATE`, since a transaction that began as a reader could be refused when it comes to write.
    pub async fn begin(store: &SqliteStore) -> Result<Change, StoreError> {
        let transaction = store.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Change { transaction, now: store.clock.now_ms(), retention: store.retention })
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }

    /// When what ends now is erased.
    pub fn expiry(&self) -> i64 {
        self.now.saturating_add(row::millis(self.retention))
    }

    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    pub async fn find(&mut self, id: GenerationId) -> Result<Option<SqliteRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM generations WHERE id = ?")
            .bind(&id.as_bytes()[..])
            .fetch_optional(self.connection())
            .await?;
        Ok(row)
    }

    /// Gives an active generation its final state, from which no change leads.
    pub async fn end(&mut self, id: GenerationId, ending: Ending) -> Result<SqliteRow, StoreError> {
        let (status, kind, artifacts, problem) = match ending {
            Ending::Succeeded(artifacts) => ("succeeded", EventKind::Succeeded, Some(row::json(&artifacts)?), None),
            Ending::Failed(problem) => ("failed", EventKind::Failed, None, Some(row::json(&problem)?)),
            Ending::Canceled => ("canceled", EventKind::Canceled, None, None),
            Ending::Expired => ("expired", EventKind::Expired, None, None),
        };
        let row = sqlx::query(
            "UPDATE generations
             SET status = ?, artifacts = ?, problem = ?, finished_at = ?, expires_at = ?, version = version + 1,
                 lease_owner = NULL, lease_expires_at = NULL
             WHERE id = ? AND status IN ('queued', 'running')
             RETURNING *",
        )
        .bind(status)
        .bind(artifacts)
        .bind(problem)
        .bind(self.now)
        .bind(self.expiry())
        .bind(&id.as_bytes()[..])
        .fetch_one(self.connection())
        .await?;
        self.append(id, kind, json!({"id": id, "status": status})).await?;
        webhooks::enqueue(self, &row, kind).await?;
        Ok(row)
    }

    /// Queues a running generation again. `uncounted` attempts are taken back from its count.
    pub async fn requeue(
        &mut self,
        id: GenerationId,
        uncounted: u32,
        delay: Duration,
        reason: &str,
    ) -> Result<SqliteRow, StoreError> {
        let row = sqlx::query(
            "UPDATE generations
             SET status = 'queued', attempt = attempt - ?, run_at = ?, version = version + 1,
                 lease_owner = NULL, lease_expires_at = NULL
             WHERE id = ? AND status = 'running'
             RETURNING *",
        )
        .bind(uncounted)
        .bind(self.now.saturating_add(row::millis(delay)))
        .bind(&id.as_bytes()[..])
        .fetch_one(self.connection())
        .await?;
        let attempt: u32 = row.try_get("attempt")?;
        self.append(id, EventKind::Retrying, json!({"id": id, "attempt": attempt, "reason": reason})).await?;
        Ok(row)
    }

    /// So many processes ended while the generation ran; `given_up`: it does not run again.
    pub async fn count_crashes(&mut self, id: GenerationId, crashes: u32, given_up: bool) -> Result<(), StoreError> {
        sqlx::query("UPDATE generations SET crash_count = crash_count + ?, dead = ? WHERE id = ?")
            .bind(crashes)
            .bind(given_up)
            .bind(&id.as_bytes()[..])
            .execute(self.connection())
            .await?;
        Ok(())
    }

    pub async fn append(&mut self, id: GenerationId, kind: EventKind, data: Value) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO generation_events (generation_id, seq, kind, data, at)
             SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4 FROM generation_events WHERE generation_id = ?1",
        )
        .bind(&id.as_bytes()[..])
        .bind(kind.as_str())
        .bind(data.to_string())
        .bind(self.now)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
