//! Workers and keys.

use std::time::Duration;

use sqlx::{
    Row,
    postgres::{PgRow, types::PgInterval},
    types::Json,
};

use crate::ledger::{Beat, KeyRecord, Orders, StoreError, WorkerRecord};

use super::{PgStore, change::Change, row};

/// One that has not beaten for so long is gone.
fn forgotten() -> PgInterval {
    row::interval(Duration::from_secs(3600))
}

pub async fn beat(store: &PgStore, beat: &Beat) -> Result<Orders, StoreError> {
    let mut loan = store.lend().await?;
    let drain = sqlx::query_scalar(
        "INSERT INTO workers (id, version, models, running, speed, started_at, beaten_at)
         VALUES ($1, $2, $3, $4, $5, statement_timestamp(), statement_timestamp())
         ON CONFLICT (id) DO UPDATE
         SET models = excluded.models, running = excluded.running, speed = excluded.speed, beaten_at = excluded.beaten_at
         RETURNING draining",
    )
    .bind(&beat.worker)
    .bind(&beat.version)
    .bind(Json(&beat.models))
    .bind(i64::from(beat.running))
    .bind(beat.speed)
    .fetch_one(&mut *loan)
    .await?;
    loan.give_back();
    Ok(Orders { drain })
}

pub async fn workers(store: &PgStore) -> Result<Vec<WorkerRecord>, StoreError> {
    let mut loan = store.lend().await?;
    let rows = sqlx::query(
        "SELECT id, version, models, running, speed, draining, started_at, beaten_at FROM workers
         WHERE beaten_at > statement_timestamp() - $1 ORDER BY id",
    )
    .bind(forgotten())
    .fetch_all(&mut *loan)
    .await?;
    loan.give_back();
    rows.iter().map(worker).collect()
}

fn worker(row: &PgRow) -> Result<WorkerRecord, StoreError> {
    let Json(models) = row.try_get("models")?;
    let beat = Beat {
        worker: row.try_get("id")?,
        version: row.try_get("version")?,
        models,
        running: row::small(row, "running")?,
        speed: row.try_get("speed")?,
    };
    Ok(WorkerRecord {
        beat,
        started_at: row::whole_ms(row.try_get("started_at")?),
        beaten_at: row::whole_ms(row.try_get("beaten_at")?),
        draining: row.try_get("draining")?,
    })
}

pub async fn drain(store: &PgStore, worker: &str, drain: bool) -> Result<bool, StoreError> {
    // No worker has such a name, and PostgreSQL no such text.
    if worker.contains('\0') {
        return Ok(false);
    }
    let mut loan = store.lend().await?;
    let update = sqlx::query("UPDATE workers SET draining = $2 WHERE id = $1").bind(worker).bind(drain);
    let drained = update.execute(&mut *loan).await?;
    loan.give_back();
    Ok(drained.rows_affected() > 0)
}

pub async fn leave(store: &PgStore, worker: &str) -> Result<(), StoreError> {
    let mut loan = store.lend().await?;
    sqlx::query("DELETE FROM workers WHERE id = $1").bind(worker).execute(&mut *loan).await?;
    loan.give_back();
    Ok(())
}

/// Keys of requests and workers whose time is over.
pub async fn purge(store: &PgStore) -> Result<(), StoreError> {
    let mut loan = store.lend().await?;
    sqlx::query(
        "DELETE FROM idempotency USING (
             SELECT tenant_id AS tenant, key AS old FROM idempotency WHERE expires_at <= statement_timestamp()
             FOR UPDATE SKIP LOCKED) AS overdue
         WHERE tenant_id = tenant AND key = old",
    )
    .execute(&mut *loan)
    .await?;
    sqlx::query("DELETE FROM workers WHERE beaten_at <= statement_timestamp() - $1")
        .bind(forgotten())
        .execute(&mut *loan)
        .await?;
    loan.give_back();
    Ok(())
}

pub async fn create_key(store: &PgStore, key: &KeyRecord) -> Result<(), StoreError> {
    let mut change = Change::begin(store).await?;
    let created = insert_key(&mut change, key).await;
    change.conclude(created).await
}

async fn insert_key(change: &mut Change, key: &KeyRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tenants (id, weight, max_queued, max_running, created_at) VALUES ($1, $2, $3, $4, statement_timestamp())
         ON CONFLICT (id) DO UPDATE
         SET weight = excluded.weight, max_queued = excluded.max_queued, max_running = excluded.max_running",
    )
    .bind(&key.tenant)
    .bind(key.weight)
    .bind(key.max_queued.map(i64::from))
    .bind(key.max_running.map(i64::from))
    .execute(change.connection())
    .await?;
    sqlx::query("INSERT INTO api_keys (id, sha256, tenant_id, created_at) VALUES ($1, $2, $3, statement_timestamp())")
        .bind(&key.id)
        .bind(&key.sha256[..])
        .bind(&key.tenant)
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Whether a key was ever made.
pub async fn has_keys(store: &PgStore) -> Result<bool, StoreError> {
    let mut loan = store.lend().await?;
    let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)").fetch_one(&mut *loan).await?;
    loan.give_back();
    Ok(any)
}

pub async fn find_key(store: &PgStore, id: &str) -> Result<Option<KeyRecord>, StoreError> {
    let mut loan = store.lend().await?;
    let row = sqlx::query(
        "SELECT api_keys.id, sha256, tenant_id, weight, max_queued, max_running FROM api_keys
         JOIN tenants ON tenants.id = tenant_id WHERE api_keys.id = $1 AND revoked_at IS NULL",
    )
    .bind(id)
    .fetch_optional(&mut *loan)
    .await?;
    loan.give_back();
    row.as_ref().map(key).transpose()
}

fn key(row: &PgRow) -> Result<KeyRecord, StoreError> {
    let bound = |column: &str| -> Result<Option<u32>, StoreError> {
        let bound: Option<i64> = row.try_get(column)?;
        Ok(bound.map(u32::try_from).transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))?)
    };
    Ok(KeyRecord {
        id: row.try_get("id")?,
        sha256: row::sha256(row, "sha256")?,
        tenant: row.try_get("tenant_id")?,
        weight: row.try_get("weight")?,
        max_queued: bound("max_queued")?,
        max_running: bound("max_running")?,
    })
}
