//! Workers claim generations from the queue, renew their leases, and finish the runs.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{
    Claimant, Lease, Ledger, Outcome, Renewed, Result,
    change::{COLUMNS, Change, Move, Step, atomically, by_id, hex},
    dialect::{Value, values},
    record::record,
    row::{Row, from_row},
};
use crate::generation::{EventKind, GenerationId, Problem, Record};

/// Key of the lock that makes claims run one after the other if a tenant has a `max_running`.
const CLAIMS: i64 = i64::from_be_bytes(*b"latentdC");

/// The methods of the ledger for a worker: they claim generations, renew leases and finish runs.
#[async_trait]
pub trait Claims: AsRef<Ledger> + Send + Sync + 'static {
    /// Takes up to `limit` queued generations for this worker in the order of the queue: priority, then the tenants'
    /// fair share, then age. Each becomes `running` under a lease; its attempt and its fence grow by one. Skips
    /// generations that wait for the delay of a retry, whose `start_timeout_s` passed before their first claim, whose
    /// tenant has as many running generations as it may have, or whose model the worker does not have.
    ///
    /// A generation whose number of crashes has reached [`Claimant::alone_from`] runs exclusively: only an `idle`
    /// worker claims it, and claims nothing else while it runs. While it is the first in the queue, workers that are
    /// not idle claim nothing, so that they become idle. Once that generation is claimed, they claim again.
    async fn claim(&self, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<(Record, Lease)>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Most claims find nothing, so one statement looks for a candidate before a transaction begins.
        let ledger = self.as_ref();
        let (text, values) = candidates(by, &[], &[], 1, "");
        let look = || async {
            if ledger.db.read(&text, &values).await?.is_empty() {
                return Ok(Vec::new());
            }
            let mut change = ledger.begin(true).await?;
            let claimed = change.claim(by, limit, idle).await;
            change.conclude(claimed).await
        };
        ledger.bounded(look).await
    }

    /// Renews and returns the leases that still hold, including expired ones that nobody has taken back yet. A lease
    /// that is not returned is lost, and its work must be discarded.
    async fn renew(&self, by: &Claimant, leases: &[Lease]) -> Result<Vec<Renewed>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let held = |lease: &Lease| json!({"held_id": hex(lease.id), "held_fence": lease.fence});
        let text = "UPDATE generations SET lease_expires_at = now() + $2
             FROM jsonb_to_recordset($1) AS held (held_id uuid, held_fence bigint)
             WHERE id = held_id AND fence = held_fence AND status = 'running'
             RETURNING id, fence, cancel_requested_at IS NOT NULL AS cancel_requested";
        let table = Value::json(&leases.iter().map(held).collect::<Vec<_>>())?;
        let rows = self.as_ref().write(text, values![table, by.lease]).await?;
        rows.iter().map(|row| Ok(from_row!(row => Renewed { id, fence, cancel_requested }))).collect()
    }

    /// Ends a run. `None` if the lease no longer holds: then nothing changed and the outcome must be discarded. If the
    /// client has canceled the generation, it is canceled instead of succeeding or being queued again.
    async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Option<Record>> {
        atomically!(self, |change| {
            let Some(held) = change.lock(lease.id).await? else { return Ok(None) };
            if held.get::<i64>("fence")? != lease.fence || held.get::<String>("status")? != "running" {
                return Ok(None);
            }
            let is_crash = matches!(outcome, Outcome::DeviceLost { .. });
            let crashes = held.get::<u32>("crash_count")?.saturating_add(is_crash.into());
            let to = match &outcome {
                Outcome::Failed(problem) => Move::Failed(problem),
                Outcome::Canceled => Move::Canceled,
                // The cancellation was promised to the client first; the worker erases the artifacts. If the generation
                // were queued again, it would run although its client has canceled it.
                _ if record(&held)?.cancel_requested => Move::Canceled,
                Outcome::Succeeded(artifacts) => Move::Succeeded(artifacts),
                Outcome::Released => Move::Queued { delay: Duration::ZERO, uncounted: 1, reason: "released" },
                Outcome::Retry { problem, delay } => {
                    Move::Queued { delay: *delay, uncounted: 0, reason: &problem.code }
                }
                Outcome::DeviceLost { problem, max_crashes } if crashes >= *max_crashes => {
                    Move::GivenUp(problem.clone())
                }
                Outcome::DeviceLost { problem, .. } => {
                    Move::Queued { delay: Duration::ZERO, uncounted: 1, reason: &problem.code }
                }
            };
            let step = Step { id: lease.id, crashes: is_crash.into(), to };
            let row = change.set_state(&[step]).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
            record(&row).map(Some)
        })
    }
}

impl Change {
    async fn claim(&mut self, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<(Record, Lease)>> {
        let picked = self.pick(by, limit, idle).await?;
        if picked.is_empty() {
            return Ok(Vec::new());
        }
        let text = format!(
            "UPDATE generations
             SET status = 'running', attempt = attempt + 1, fence = fence + 1, version = version + 1,
                 started_at = coalesce(started_at, now()), start_deadline = NULL, lease_owner = $2,
                 lease_expires_at = now() + $3
             WHERE id = ANY($1) AND status = 'queued' RETURNING {COLUMNS}"
        );
        let mut rows = by_id(self.fetch(&text, values![Value::ids(&picked), &by.worker, by.lease]).await?)?;
        let rows: Vec<Row> = picked.iter().filter_map(|id| rows.remove(id)).collect();
        self.start(&rows).await
    }

    /// Picks the next generations for this worker, and locks their rows.
    async fn pick(&mut self, by: &Claimant, limit: usize, idle: bool) -> Result<Vec<GenerationId>> {
        let alone = "SELECT EXISTS (
             SELECT 1 FROM generations INDEXED BY generations_running
             WHERE status = 'running' AND lease_owner = $1 AND crash_count >= $2) AS is_alone";
        if self.one(alone, values![&by.worker, by.alone_from]).await?.get("is_alone")? {
            return Ok(Vec::new());
        }
        let mut room = self.room_of_tenants().await?;
        let (mut picked, mut seen) = (Vec::new(), Vec::new());
        loop {
            let full: Vec<String> = room.iter().filter(|(_, left)| **left <= 0).map(|(id, _)| id.clone()).collect();
            // A worker that cannot take the first generation must not lock its row: an idle worker would skip the row.
            if !idle && picked.is_empty() {
                let (text, values) = candidates(by, &full, &[], 1, "");
                let head = self.fetch(&text, values).await?.pop();
                let crashes = head.map(|head| head.get::<u32>("crash_count")).transpose()?;
                if crashes.is_none_or(|crashes| crashes >= by.alone_from) {
                    return Ok(picked);
                }
            }
            let wanted = limit - picked.len();
            let (text, values) = candidates(by, &full, &seen, wanted, " FOR UPDATE SKIP LOCKED");
            let rows = self.fetch(&text, values).await?;
            for row in &rows {
                let id: GenerationId = row.get("id")?;
                seen.push(id);
                let left = room.get_mut(&row.get::<String>("tenant_id")?);
                if left.as_ref().is_some_and(|left| **left <= 0) {
                    continue;
                }
                let alone = row.get::<u32>("crash_count")? >= by.alone_from;
                if alone && (!idle || !picked.is_empty()) {
                    return Ok(picked);
                }
                left.into_iter().for_each(|left| *left -= 1);
                picked.push(id);
                if alone {
                    return Ok(picked);
                }
            }
            // If generations were skipped because their tenants may run no more, the next round looks behind them.
            if picked.len() == limit || rows.len() < wanted {
                return Ok(picked);
            }
        }
    }

    /// How many more generations each tenant with a bound may run. If there is such a tenant, claims run one after the
    /// other, so that the count is exact; every other change of the count only lowers it.
    async fn room_of_tenants(&mut self) -> Result<HashMap<String, i64>> {
        let bounded = "SELECT EXISTS (SELECT 1 FROM tenants WHERE max_running IS NOT NULL) AS bounded";
        if !self.one(bounded, values![]).await?.get::<bool>("bounded")? {
            return Ok(HashMap::new());
        }
        if self.is_shared {
            self.fetch("SELECT pg_advisory_xact_lock($1)", values![CLAIMS]).await?;
        }
        let room = "SELECT id, max_running - (
             SELECT count(*) FROM generations WHERE status = 'running' AND tenant_id = tenants.id) AS room
         FROM tenants WHERE max_running IS NOT NULL";
        let rows = self.fetch(room, values![]).await?;
        rows.iter().map(|row| Ok((row.get("id")?, row.get("room")?))).collect()
    }

    /// Appends the events of claimed generations and advances the virtual time.
    async fn start(&mut self, rows: &[Row]) -> Result<Vec<(Record, Lease)>> {
        let (mut started, mut claimed, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let mut v = f64::MIN;
        for row in rows {
            let (id, attempt): (GenerationId, u32) = (row.get("id")?, row.get("attempt")?);
            started.push((id, EventKind::Started, json!({"id": id, "attempt": attempt})));
            v = v.max(row.get("vft")?);
            match record(row) {
                Ok(record) => claimed.push((record, Lease { id, fence: row.get("fence")? })),
                // If an unreadable generation stayed in the queue, every later claim would fail.
                Err(error) => {
                    tracing::error!(%error, "a generation fails, because it cannot be read");
                    unreadable.push(id);
                }
            }
        }
        // The clock is locked before the events lock the rows of tenants, because accepting locks in this order, too.
        self.fetch("UPDATE queue_clock SET v = $1 WHERE v < $1", values![v]).await?;
        self.append(&started).await?;
        for row in rows {
            self.enqueue(row, EventKind::Started).await?;
        }
        let message = "the stored request cannot be read".to_owned();
        let problem = Problem { code: "internal".to_owned(), message, retryable: false };
        for id in unreadable {
            self.step(id, Move::Failed(&problem)).await?;
        }
        Ok(claimed)
    }
}

/// The statement that reads the queue in its order for this worker: only its models, and neither generations of the
/// tenants in `full` nor those in `seen`. With a `lock`, other claims skip the rows; otherwise, they may take them too.
fn candidates(by: &Claimant, full: &[String], seen: &[GenerationId], limit: usize, lock: &str) -> (String, Vec<Value>) {
    let text = format!(
        "SELECT id, tenant_id, crash_count FROM generations INDEXED BY generations_claim
         WHERE status = 'queued' AND run_at <= now() AND (start_deadline IS NULL OR start_deadline > now())
             AND model = ANY($1) AND tenant_id <> ALL($2) AND id <> ALL($3)
         ORDER BY priority DESC, vft, id
         LIMIT $4{lock}"
    );
    (text, values![Value::Texts(by.models.clone()), Value::Texts(full.to_vec()), Value::ids(seen), limit])
}
