//! One change: a transaction that moves generations from state to state and tells of it in events.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Executor, PgConnection, Row, postgres::PgRow, types::Json};

use crate::generation::{Artifact, EventKind, GenerationId, Problem};
use crate::ledger::StoreError;

use super::{PgStore, pool::Loan, row, webhooks};

/// A transaction. Dropped before [`Change::conclude`], as by a caller that waits no longer, it leaves nothing behind.
pub struct Change {
    loan: Loan,
    retention: Duration,
}

/// A final state.
pub enum Ending<'a> {
    Succeeded(&'a [Artifact]),
    Failed(&'a Problem),
    /// Failed, and marked for an operator to look at.
    GivenUp(&'a Problem),
    Canceled,
    Expired,
}

impl Change {
    pub async fn begin(store: &PgStore) -> Result<Change, StoreError> {
        Change::begin_by(store, "BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// `begin` may set more for this transaction, in the same message.
    pub async fn begin_by(store: &PgStore, begin: &'static str) -> Result<Change, StoreError> {
        let mut loan = store.lend().await?;
        loan.execute(begin).await?;
        Ok(Change { loan, retention: store.retention })
    }

    /// Commits what was done, or undoes it where something failed.
    pub async fn conclude<T>(mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        let concluded = self.loan.execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
        match (done, concluded) {
            (done, Ok(_)) => {
                self.loan.give_back();
                done
            }
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(error), Err(_)) => Err(error),
        }
    }

    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.loan
    }

    /// How long what ends now is kept.
    pub fn retention(&self) -> Duration {
        self.retention
    }

    /// Reads a generation and keeps others from changing it.
    pub async fn lock(&mut self, id: GenerationId) -> Result<Option<PgRow>, StoreError> {
        let sql = concat!("SELECT ", row::columns!(), " FROM generations WHERE id = $1 FOR NO KEY UPDATE");
        Ok(sqlx::query(sql).bind(row::uuid(id)).fetch_optional(self.connection()).await?)
    }

    /// Gives an active generation its final state, from which no change leads.
    pub async fn end(&mut self, id: GenerationId, ending: Ending<'_>) -> Result<PgRow, StoreError> {
        let ended = self.end_all(&[id], ending).await?;
        Ok(ended.into_iter().next().ok_or(sqlx::Error::RowNotFound)?)
    }

    /// The same for generations that this change holds.
    pub async fn end_all(&mut self, ids: &[GenerationId], ending: Ending<'_>) -> Result<Vec<PgRow>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let is_dead = matches!(ending, Ending::GivenUp(_));
        let (status, kind, artifacts, problem) = match ending {
            Ending::Succeeded(artifacts) => ("succeeded", EventKind::Succeeded, Some(Json(artifacts)), None),
            Ending::Failed(problem) | Ending::GivenUp(problem) => {
                ("failed", EventKind::Failed, None, Some(Json(problem)))
            }
            Ending::Canceled => ("canceled", EventKind::Canceled, None, None),
            Ending::Expired => ("expired", EventKind::Expired, None, None),
        };
        let rows = sqlx::query(concat!(
            "UPDATE generations
             SET status = $2, artifacts = $3, problem = $4, finished_at = statement_timestamp(),
                 expires_at = statement_timestamp() + $5, version = version + 1, dead = $6,
                 lease_owner = NULL, lease_expires_at = NULL
             WHERE id = ANY($1) AND status IN ('queued', 'running')
             RETURNING ",
            row::columns!()
        ))
        .bind(row::uuids(ids))
        .bind(status)
        .bind(artifacts)
        .bind(problem)
        .bind(row::interval(self.retention))
        .bind(is_dead)
        .fetch_all(self.connection())
        .await?;
        self.forget(ids).await?;
        let told = |row: &PgRow| Ok((row::id(row)?, json!({"id": row::id(row)?, "status": status})));
        let told = rows.iter().map(told).collect::<Result<Vec<_>, StoreError>>()?;
        self.append(kind, told).await?;
        webhooks::enqueue(self, &rows, kind).await?;
        Ok(rows)
    }

    /// Queues a running generation again. `uncounted` attempts are taken back from its count.
    pub async fn requeue(
        &mut self,
        id: GenerationId,
        uncounted: i32,
        delay: Duration,
        reason: &str,
    ) -> Result<PgRow, StoreError> {
        let queued = self.requeue_all(&[(id, delay)], uncounted, reason).await?;
        Ok(queued.into_iter().next().ok_or(sqlx::Error::RowNotFound)?)
    }

    /// The same for generations that this change holds, each with its delay.
    pub async fn requeue_all(
        &mut self,
        delayed: &[(GenerationId, Duration)],
        uncounted: i32,
        reason: &str,
    ) -> Result<Vec<PgRow>, StoreError> {
        if delayed.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = delayed.iter().map(|(id, _)| *id).collect();
        let delays: Vec<_> = delayed.iter().map(|(_, delay)| row::interval(*delay)).collect();
        let rows = sqlx::query(concat!(
            "UPDATE generations
             SET status = 'queued', attempt = attempt - $3, run_at = statement_timestamp() + delay, version = version + 1,
                 lease_owner = NULL, lease_expires_at = NULL
             FROM unnest($1::uuid[], $2::interval[]) AS delayed (delayed_id, delay)
             WHERE id = delayed_id AND status = 'running'
             RETURNING ",
            row::columns!()
        ))
        .bind(row::uuids(&ids))
        .bind(delays)
        .bind(uncounted)
        .fetch_all(self.connection())
        .await?;
        self.forget(&ids).await?;
        let told = |row: &PgRow| {
            let (id, attempt) = (row::id(row)?, row.try_get::<i32, _>("attempt")?);
            Ok((id, json!({"id": id, "attempt": attempt, "reason": reason})))
        };
        let told = rows.iter().map(told).collect::<Result<Vec<_>, StoreError>>()?;
        self.append(EventKind::Retrying, told).await?;
        Ok(rows)
    }

    /// Nobody watches an attempt that is over.
    async fn forget(&mut self, ids: &[GenerationId]) -> Result<(), StoreError> {
        sqlx::query(
            "WITH forgotten AS (DELETE FROM artifact_previews WHERE generation_id = ANY($1))
             DELETE FROM generation_progress WHERE generation_id = ANY($1)",
        )
        .bind(row::uuids(ids))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Appends an event to each of these generations, whose rows this change holds: so the numbers have no gaps.
    pub async fn append(&mut self, kind: EventKind, told: Vec<(GenerationId, Value)>) -> Result<(), StoreError> {
        let (ids, data): (Vec<_>, Vec<_>) = told.into_iter().unzip();
        sqlx::query(
            "INSERT INTO generation_events (generation_id, seq, kind, data, at)
             SELECT id, 1 + (SELECT coalesce(max(seq), 0) FROM generation_events WHERE generation_id = id), $3, data,
                 statement_timestamp()
             FROM unnest($1::uuid[], $2::jsonb[]) AS told (id, data)",
        )
        .bind(row::uuids(&ids))
        .bind(data)
        .bind(kind.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
