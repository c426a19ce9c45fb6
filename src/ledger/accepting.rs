//! Changes that clients request: generations are accepted, canceled, queued again or erased.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{
    Acceptance, Accepted, Fingerprint, Ledger, Refusal, Result,
    change::{COLUMNS, Change, Move, atomically},
    dialect::{Value, values},
    estimates::estimate,
    record::record,
    row::Row,
};
use crate::generation::{EventKind, GenerationId, Record, Status};

/// The methods of the ledger for changes that clients request. Each change of state, in every role, is one conditional
/// transaction that also appends its event; a change that no longer applies changes nothing. Times are the database's.
#[async_trait]
pub trait Accepts: AsRef<Ledger> + Send + Sync + 'static {
    /// Stores the generation in state `queued` with its first event, at its tenant's place in the queue.
    ///
    /// A request is a repetition if an earlier equal request had the same idempotency key or, if no request had this
    /// key, the same id. Then nothing is written, and the answer is the earlier request's generation in its present
    /// state. An idempotency key that has expired is free. Erasing a generation frees its id and its idempotency key.
    ///
    /// The tenant's queue share and usage and the API key's limits are charged now, even if the generation fails later.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`], [`Refusal::TenantQueueFull`], [`Refusal::KeyReused`], [`Refusal::IdTaken`],
    /// [`Refusal::LimitReached`], [`Refusal::KeyEnded`].
    async fn accept(&self, acceptance: &Acceptance<'_>) -> Result<Accepted> {
        atomically!(self, |change| {
            // With this lock, requests are accepted one after the other: the next one waits for the commit.
            let clock = change.one("SELECT v, now() AS now FROM queue_clock FOR UPDATE", values![]).await?;
            if let Some(again) = change.accepted_before(acceptance).await? {
                return Ok(Accepted::Again(again));
            }
            change.charge(acceptance, clock.get("now")?).await?;
            let vft = change.take_place(acceptance, clock.get("v")?).await?;
            let Acceptance { id, tenant, job, fingerprint, cost, assumed_speed, .. } = acceptance;
            let start_timeout = Duration::from_secs(job.start_timeout_s.into());
            let text = format!(
                "INSERT INTO generations (id, tenant_id, status, model, params, created_at, run_at, start_deadline,
                     priority, vft, cost, aged_at, fingerprint, estimated_s, kind)
                 VALUES ($1, $2, 'queued', $3, $4, now(), now(), now() + $5, $6, $7, $8, now(), $9, {}, $11)
                 RETURNING {COLUMNS}",
                estimate("$3", "$8", "$10")
            );
            let (params, rank, kind) = (Value::json(job)?, job.priority.rank(), job.work.kind().as_str());
            let (cost, speed) = (*cost, *assumed_speed);
            let values =
                values![*id, *tenant, &job.model, params, start_timeout, rank, vft, cost, fingerprint, speed, kind];
            let record = record(&change.one(&text, values).await?)?;
            for input in job.inputs() {
                let text =
                    "INSERT INTO generation_inputs (sha256, generation_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
                change.fetch(text, values![&input.upload, *id]).await?;
            }
            if let Some((key, kept)) = acceptance.key {
                // An expired idempotency key is overwritten.
                let text = "INSERT INTO idempotency (tenant_id, key, fingerprint, generation_id, expires_at)
                     VALUES ($1, $2, $3, $4, now() + $5)
                     ON CONFLICT (tenant_id, key) DO UPDATE
                     SET fingerprint = excluded.fingerprint, generation_id = excluded.generation_id,
                         expires_at = excluded.expires_at";
                change.fetch(text, values![*tenant, key, fingerprint, *id, kept]).await?;
            }
            change.append(&[(*id, EventKind::Queued, json!({"id": id, "status": "queued"}))]).await?;
            Ok(Accepted::New(record))
        })
    }

    /// The generation of this tenant's idempotency key, and the fingerprint of the request that made the generation.
    async fn find_accepted(&self, tenant: &str, key: &str) -> Result<Option<(GenerationId, Fingerprint)>> {
        let text = "SELECT generation_id, fingerprint FROM idempotency
             WHERE tenant_id = $1 AND key = $2 AND expires_at > now()";
        let row = self.as_ref().read(text, values![tenant, key]).await?.pop();
        row.map(|row| Ok((row.get("generation_id")?, row.get("fingerprint")?))).transpose()
    }

    /// Cancels a queued generation at once. Marks a running generation, so that its worker stops it before the next
    /// step. Returns a finished generation unchanged. `None` if there is no such generation.
    async fn cancel(&self, id: GenerationId) -> Result<Option<Record>> {
        atomically!(self, |change| {
            let Some(row) = change.lock(id).await? else { return Ok(None) };
            let found = record(&row)?;
            let canceled = match found.status {
                Status::Queued => {
                    change.mark(id, 0).await?;
                    change.step(id, Move::Canceled).await?
                }
                Status::Running if !found.cancel_requested => change.mark(id, 1).await?,
                _ => return Ok(Some(found)),
            };
            record(&canceled).map(Some)
        })
    }

    /// Queues a dead generation again at its old place, as if it had never run, even if the queue is full. The fence
    /// and the event numbers continue; only here, events follow a final event. `None` if no dead generation has this
    /// id.
    async fn revive(&self, id: GenerationId) -> Result<Option<Record>> {
        atomically!(self, |change| {
            let text = format!(
                "UPDATE generations
                 SET status = 'queued', dead = false, crash_count = 0, attempt = 0, problem = NULL, run_at = now(),
                     started_at = NULL, finished_at = NULL, expires_at = NULL, aged_at = now(), version = version + 1
                 WHERE id = $1 AND dead RETURNING {COLUMNS}"
            );
            let Some(row) = change.fetch(&text, values![id]).await?.pop() else { return Ok(None) };
            let told = json!({"id": id, "attempt": 0, "reason": "revived"});
            change.append(&[(id, EventKind::Retrying, told)]).await?;
            record(&row).map(Some)
        })
    }

    /// Gives a generation that succeeded a star, or takes the star away. With a star, a generation is kept for a
    /// century. Without, its retention time begins now. `None` if there is no such generation.
    ///
    /// # Errors
    /// [`Refusal::NotSucceeded`]; [`Refusal::StarsFull`] if `most` generations of the tenant have stars.
    async fn star(&self, id: GenerationId, starred: bool, most: usize) -> Result<Option<Record>> {
        atomically!(self, |change| {
            let Some(row) = change.lock(id).await? else { return Ok(None) };
            let found = record(&row)?;
            if found.starred == starred {
                return Ok(Some(found));
            }
            if !matches!(found.status, Status::Succeeded { .. }) {
                return Err(Refusal::NotSucceeded.into());
            }
            if starred {
                // The lock lasts until the commit, so the count is exact.
                change.fetch("SELECT id FROM tenants WHERE id = $1 FOR NO KEY UPDATE", values![&found.tenant]).await?;
                let count = "SELECT count(*) AS stars FROM generations WHERE tenant_id = $1 AND starred";
                if change.one(count, values![&found.tenant]).await?.get::<usize>("stars")? >= most {
                    return Err(Refusal::StarsFull { most }.into());
                }
            }
            // `expires_at` alone decides about deletion, also in processes that know no stars.
            let kept = if starred { Duration::MAX } else { change.retention };
            let text = format!(
                "UPDATE generations SET starred = $2, expires_at = now() + $3, version = version + 1
                 WHERE id = $1 RETURNING {COLUMNS}"
            );
            record(&change.one(&text, values![id, starred, kept]).await?).map(Some)
        })
    }

    /// Erases a finished generation with its events, unless it has changed since `read`. The caller erases its blobs.
    ///
    /// # Errors
    /// [`Refusal::NotFinished`] if the generation is queued or running.
    async fn delete(&self, id: GenerationId, read: Option<&Record>) -> Result<Option<Record>> {
        atomically!(self, |change| {
            let Some(row) = change.lock(id).await? else { return Ok(None) };
            let found = record(&row)?;
            if !found.status.is_terminal() {
                return Err(Refusal::NotFinished.into());
            }
            let true = read.is_none_or(|read| read.expires_at == found.expires_at) else { return Ok(None) };
            // The database then erases the events, too, because their foreign key cascades.
            change.fetch("DELETE FROM generations WHERE id = $1", values![id]).await?;
            Ok(Some(found))
        })
    }
}

impl Change {
    /// Stores the client's wish to cancel. `versions` is 1, or 0 if another statement increments the version.
    async fn mark(&mut self, id: GenerationId, versions: u32) -> Result<Row> {
        let text = format!(
            "UPDATE generations SET cancel_requested_at = now(), version = version + $2 WHERE id = $1 RETURNING {COLUMNS}"
        );
        self.one(&text, values![id, versions]).await
    }

    /// The generation that the same request made before; an error if another request has used the key or id.
    async fn accepted_before(&mut self, acceptance: &Acceptance<'_>) -> Result<Option<Record>> {
        if let Some((key, _)) = acceptance.key {
            let text = format!(
                "SELECT {COLUMNS}, (SELECT fingerprint FROM idempotency WHERE tenant_id = $1 AND key = $2) AS asked
                 FROM generations WHERE id = (
                     SELECT generation_id FROM idempotency WHERE tenant_id = $1 AND key = $2 AND expires_at > now())"
            );
            if let Some(kept) = self.fetch(&text, values![acceptance.tenant, key]).await?.pop() {
                let same = kept.get::<Fingerprint>("asked")? == acceptance.fingerprint;
                return if same { record(&kept).map(Some) } else { Err(Refusal::KeyReused.into()) };
            }
        }
        let text = format!("SELECT {COLUMNS} FROM generations WHERE id = $1");
        let Some(kept) = self.fetch(&text, values![acceptance.id]).await?.pop() else { return Ok(None) };
        let same = kept.get::<Option<Fingerprint>>("fingerprint")? == Some(acceptance.fingerprint)
            && kept.get::<String>("tenant_id")? == acceptance.tenant;
        if same { record(&kept).map(Some) } else { Err(Refusal::IdTaken.into()) }
    }

    /// Checks the bounds of the queue and takes the tenant's next place in it: self-clocked fair queueing, whose
    /// virtual time `v` is the virtual finish time of the last claimed generation, and never falls (Golestani 1994).
    async fn take_place(&mut self, acceptance: &Acceptance<'_>, v: f64) -> Result<f64> {
        let text = "SELECT (SELECT count(*) FROM generations WHERE status = 'queued') AS queued,
             (SELECT count(*) FROM generations WHERE status = 'queued' AND tenant_id = $1) AS own,
             (SELECT max_queued FROM tenants WHERE id = $1) AS most";
        let row = self.one(text, values![acceptance.tenant]).await?;
        let (queued, own, most): (usize, usize, Option<usize>) =
            (row.get("queued")?, row.get("own")?, row.get("most")?);
        if queued >= acceptance.max_queued {
            return Err(Refusal::QueueFull { queued }.into());
        }
        if most.is_some_and(|most| own >= most) {
            return Err(Refusal::TenantQueueFull { queued: own }.into());
        }
        let text = "INSERT INTO tenants (id, vft, created_at) VALUES ($1, $2 + $3, now())
             ON CONFLICT (id) DO UPDATE SET vft = greatest(tenants.vft, $2) + $3 / tenants.weight RETURNING vft";
        Ok(self.one(text, values![acceptance.tenant, v, acceptance.cost]).await?.get("vft")?)
    }
}
