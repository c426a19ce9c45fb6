//! Into the queue.

use serde_json::json;
use sqlx::{Row, types::Json};

use crate::generation::{EventKind, GenerationId, Record};
use crate::ledger::{Acceptance, Accepted, Fingerprint, StoreError};

use super::{PgStore, change::Change, row};

pub async fn accept(store: &PgStore, acceptance: &Acceptance<'_>) -> Result<Accepted, StoreError> {
    let mut change = Change::begin(store).await?;
    let accepted = take_in(&mut change, acceptance).await;
    change.conclude(accepted).await
}

async fn take_in(change: &mut Change, acceptance: &Acceptance<'_>) -> Result<Accepted, StoreError> {
    // One accepts after the other: what is read from here on stays so until the commit.
    let v: f64 = sqlx::query_scalar("SELECT v FROM queue_clock FOR UPDATE").fetch_one(change.connection()).await?;
    if let Some(again) = accepted_before(change, acceptance).await? {
        return Ok(Accepted::Again(again));
    }
    let vft = take_place(change, acceptance, v).await?;
    let (id, job) = (acceptance.id, acceptance.job);
    let inserted = sqlx::query(concat!(
        "INSERT INTO generations (id, tenant_id, status, model, params, created_at, run_at, start_deadline, priority, vft,
            cost, aged_at, fingerprint)
         VALUES ($1, $2, 'queued', $3, $4, statement_timestamp(), statement_timestamp(),
            statement_timestamp() + make_interval(secs => $5), $6, $7, $8, statement_timestamp(), $9)
         RETURNING ",
        row::columns!()
    ))
    .bind(row::uuid(id))
    .bind(acceptance.tenant)
    .bind(&job.model)
    .bind(Json(job))
    .bind(f64::from(job.start_timeout_s))
    .bind(job.priority.rank())
    .bind(vft)
    .bind(acceptance.cost)
    .bind(&acceptance.fingerprint[..])
    .fetch_one(change.connection())
    .await?;
    let record = row::record(&inserted)?;
    for input in job.inputs() {
        sqlx::query("INSERT INTO generation_inputs (sha256, generation_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(&input.upload)
            .bind(row::uuid(id))
            .execute(change.connection())
            .await?;
    }
    if let Some((key, kept)) = acceptance.key {
        // One whose time is over makes room.
        sqlx::query(
            "INSERT INTO idempotency (tenant_id, key, fingerprint, generation_id, expires_at)
             VALUES ($1, $2, $3, $4, statement_timestamp() + $5)
             ON CONFLICT (tenant_id, key) DO UPDATE
             SET fingerprint = excluded.fingerprint, generation_id = excluded.generation_id, expires_at = excluded.expires_at",
        )
        .bind(acceptance.tenant)
        .bind(key)
        .bind(&acceptance.fingerprint[..])
        .bind(row::uuid(id))
        .bind(row::interval(kept))
        .execute(change.connection())
        .await?;
    }
    change.append(EventKind::Queued, vec![(id, json!({"id": id, "status": "queued"}))]).await?;
    Ok(Accepted::New(record))
}

/// The generation that the same request has made before; an error where another request has used its key or its id.
async fn accepted_before(change: &mut Change, acceptance: &Acceptance<'_>) -> Result<Option<Record>, StoreError> {
    if let Some((key, _)) = acceptance.key {
        let kept = sqlx::query(
            "SELECT generation_id AS id, fingerprint FROM idempotency
             WHERE tenant_id = $1 AND key = $2 AND expires_at > statement_timestamp()",
        )
        .bind(acceptance.tenant)
        .bind(key)
        .fetch_optional(change.connection())
        .await?;
        if let Some(kept) = kept {
            if row::sha256(&kept, "fingerprint")? != acceptance.fingerprint {
                return Err(StoreError::KeyReused);
            }
            if let Some(made) = find(change, row::id(&kept)?).await? {
                return row::record(&made).map(Some);
            }
            // It was erased between the two reads, and its key with it.
        }
    }
    let Some(kept) = find(change, acceptance.id).await? else { return Ok(None) };
    let same = kept.try_get::<Option<&[u8]>, _>("fingerprint")? == Some(&acceptance.fingerprint[..])
        && kept.try_get::<&str, _>("tenant_id")? == acceptance.tenant;
    if same { row::record(&kept).map(Some) } else { Err(StoreError::IdTaken) }
}

async fn find(change: &mut Change, id: GenerationId) -> Result<Option<sqlx::postgres::PgRow>, StoreError> {
    let sql = concat!("SELECT ", row::columns!(), " FROM generations WHERE id = $1");
    Ok(sqlx::query(sql).bind(row::uuid(id)).fetch_optional(change.connection()).await?)
}

/// Checks the bounds of the queue and takes the tenant's next place in it: start-time fair queueing with the finish time of
/// the generation that was claimed last, `v`, as the virtual time (Golestani 1994).
async fn take_place(change: &mut Change, acceptance: &Acceptance<'_>, v: f64) -> Result<f64, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS queued, count(*) FILTER (WHERE tenant_id = $1) AS own,
                (SELECT max_queued FROM tenants WHERE id = $1) AS most
         FROM generations WHERE status = 'queued'",
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
        "INSERT INTO tenants (id, vft, created_at) VALUES ($1, $2 + $3, statement_timestamp())
         ON CONFLICT (id) DO UPDATE SET vft = greatest(tenants.vft, $2) + $3 / tenants.weight
         RETURNING vft",
    )
    .bind(acceptance.tenant)
    .bind(v)
    .bind(acceptance.cost)
    .fetch_one(change.connection())
    .await?;
    Ok(vft)
}

pub async fn find_accepted(
    store: &PgStore,
    tenant: &str,
    key: &str,
) -> Result<Option<(GenerationId, Fingerprint)>, StoreError> {
    let mut loan = store.lend().await?;
    let row = sqlx::query(
        "SELECT generation_id AS id, fingerprint FROM idempotency
         WHERE tenant_id = $1 AND key = $2 AND expires_at > statement_timestamp()",
    )
    .bind(tenant)
    .bind(key)
    .fetch_optional(&mut *loan)
    .await?;
    loan.give_back();
    row.map(|row| Ok((row::id(&row)?, row::sha256(&row, "fingerprint")?))).transpose()
}
