//! Into the queue.

use serde_json::json;
use sqlx::Row;

use crate::generation::{EventKind, GenerationId};
use crate::ledger::{Acceptance, Accepted, Fingerprint, StoreError};

use super::{SqliteStore, change::Change, row};

pub async fn accept(store: &SqliteStore, acceptance: &Acceptance<'_>) -> Result<Accepted, StoreError> {
    let mut change = Change::begin(store).await?;
    if let Some(again) = accepted_before(&mut change, acceptance).await? {
        return Ok(Accepted::Again(again));
    }
    let vft = take_place(&mut change, acceptance).await?;
    let (id, now, job) = (acceptance.id, change.now, acceptance.job);
    let inserted = sqlx::query(
        "INSERT INTO generations (id, tenant_id, status, model, params, created_at, run_at, start_deadline, priority, vft,
            cost, aged_at, fingerprint)
         VALUES (?1, ?2, 'queued', ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9, ?5, ?10)
         RETURNING *",
    )
    .bind(&id.as_bytes()[..])
    .bind(acceptance.tenant)
    .bind(&job.model)
    .bind(row::json(job)?)
    .bind(now)
    .bind(now + i64::from(job.start_timeout_s) * 1000)
    .bind(job.priority.rank())
    .bind(vft)
    .bind(acceptance.cost)
    .bind(&acceptance.fingerprint[..])
    .fetch_one(change.connection())
    .await?;
    let record = row::record(&inserted)?;
    for input in job.inputs() {
        sqlx::query("INSERT OR IGNORE INTO generation_inputs (sha256, generation_id) VALUES (?, ?)")
            .bind(&input.upload)
            .bind(&id.as_bytes()[..])
            .execute(change.connection())
            .await?;
    }
    if let Some((key, kept)) = acceptance.key {
        // One whose time is over makes room.
        sqlx::query("INSERT OR REPLACE INTO idempotency (tenant_id, key, fingerprint, generation_id, expires_at) VALUES (?, ?, ?, ?, ?)")
            .bind(acceptance.tenant)
            .bind(key)
            .bind(&acceptance.fingerprint[..])
            .bind(&id.as_bytes()[..])
            .bind(now.saturating_add(row::millis(kept)))
            .execute(change.connection())
            .await?;
    }
    change.append(id, EventKind::Queued, json!({"id": id, "status": "queued"})).await?;
    change.commit().await?;
    Ok(Accepted::New(record))
}

/// The generation that the same request has made before; an error where another request has used its key or its id.
async fn accepted_before(
    change: &mut Change,
    acceptance: &Acceptance<'_>,
) -> Result<Option<crate::generation::Record>, StoreError> {
    if let Some((key, _)) = acceptance.key {
        let kept = sqlx::query(
            "SELECT generations.*, idempotency.fingerprint AS asked FROM idempotency
             JOIN generations ON generations.id = generation_id
             WHERE idempotency.tenant_id = ? AND key = ? AND idempotency.expires_at > ?",
        )
        .bind(acceptance.tenant)
        .bind(key)
        .bind(change.now)
        .fetch_optional(change.connection())
        .await?;
        if let Some(kept) = kept {
            let same = kept.try_get::<&[u8], _>("asked")? == acceptance.fingerprint;
            return if same { row::record(&kept).map(Some) } else { Err(StoreError::KeyReused) };
        }
    }
    let Some(kept) = change.find(acceptance.id).await? else { return Ok(None) };
    let same = kept.try_get::<Option<&[u8]>, _>("fingerprint")? == Some(&acceptance.fingerprint[..])
        && kept.try_get::<&str, _>("tenant_id")? == acceptance.tenant;
    if same { row::record(&kept).map(Some) } else { Err(StoreError::IdTaken) }
}

/// Checks the bounds of the queue and takes the tenant's next place in it: start-time fair queueing with the finish time of
/// the generation that was claimed last as the virtual time (Golestani 1994).
async fn take_place(change: &mut Change, acceptance: &Acceptance<'_>) -> Result<f64, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM generations WHERE status = 'queued') AS queued,
                (SELECT count(*) FROM generations WHERE status = 'queued' AND tenant_id = ?1) AS own,
                (SELECT max_queued FROM tenants WHERE id = ?1) AS most",
    )
    .bind(acceptance.tenant)
    .fetch_one(change.connection())
    .await?;
    let (queued, own) = (row::size(row.try_get("queued")?), row::size(row.try_get("own")?));
    let most = row.try_get::<Option<i64>, _>("most")?;
    if queued >= acceptance.max_queued {
        return Err(StoreError::QueueFull { queued });
    }
    if most.is_some_and(|most| own >= row::size(most)) {
        return Err(StoreError::TenantQueueFull { queued: own });
    }
    let vft = sqlx::query_scalar(
        "INSERT INTO tenants (id, vft, created_at) VALUES (?1, (SELECT v FROM queue_clock) + ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET vft = max(vft, (SELECT v FROM queue_clock)) + ?2 / weight
         RETURNING vft",
    )
    .bind(acceptance.tenant)
    .bind(acceptance.cost)
    .bind(change.now)
    .fetch_one(change.connection())
    .await?;
    Ok(vft)
}

pub async fn find_accepted(
    store: &SqliteStore,
    tenant: &str,
    key: &str,
) -> Result<Option<(GenerationId, Fingerprint)>, StoreError> {
    let row = sqlx::query(
        "SELECT generation_id AS id, fingerprint FROM idempotency WHERE tenant_id = ? AND key = ? AND expires_at > ?",
    )
    .bind(tenant)
    .bind(key)
    .bind(store.clock.now_ms())
    .fetch_optional(&store.readers)
    .await?;
    row.map(|row| Ok((row::id(&row)?, row::sha256(&row, "fingerprint")?))).transpose()
}
