//! Workers and keys.

use sqlx::{Row, sqlite::SqliteRow};

use crate::ledger::{Beat, KeyRecord, Orders, StoreError, WorkerRecord};

use super::{SqliteStore, change::Change, row};

/// One that has not beaten for so long is gone.
pub const FORGOTTEN_MS: i64 = 3_600_000;

pub async fn beat(store: &SqliteStore, beat: &Beat) -> Result<Orders, StoreError> {
    let mut change = Change::begin(store).await?;
    let row = sqlx::query(
        "INSERT INTO workers (id, version, models, running, speed, started_at, beaten_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
         ON CONFLICT (id) DO UPDATE SET models = ?3, running = ?4, speed = ?5, beaten_at = ?6
         RETURNING draining",
    )
    .bind(&beat.worker)
    .bind(&beat.version)
    .bind(row::json(&beat.models)?)
    .bind(beat.running)
    .bind(beat.speed)
    .bind(change.now)
    .fetch_one(change.connection())
    .await?;
    change.commit().await?;
    Ok(Orders { drain: row.try_get("draining")? })
}

pub async fn workers(store: &SqliteStore) -> Result<Vec<WorkerRecord>, StoreError> {
    let rows = sqlx::query("SELECT * FROM workers WHERE beaten_at > ? ORDER BY id")
        .bind(store.clock.now_ms() - FORGOTTEN_MS)
        .fetch_all(&store.readers)
        .await?;
    rows.iter().map(worker).collect()
}

fn worker(row: &SqliteRow) -> Result<WorkerRecord, StoreError> {
    let models: &str = row.try_get("models")?;
    let beat = Beat {
        worker: row.try_get("id")?,
        version: row.try_get("version")?,
        models: serde_json::from_str(models).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        running: row.try_get("running")?,
        speed: row.try_get("speed")?,
    };
    Ok(WorkerRecord {
        beat,
        started_at: row::moment(row.try_get("started_at")?)?,
        beaten_at: row::moment(row.try_get("beaten_at")?)?,
        draining: row.try_get("draining")?,
    })
}

pub async fn drain(store: &SqliteStore, worker: &str, drain: bool) -> Result<bool, StoreError> {
    let update = sqlx::query("UPDATE workers SET draining = ? WHERE id = ?").bind(drain).bind(worker);
    let done = update.execute(&store.writer).await?;
    Ok(done.rows_affected() > 0)
}

pub async fn leave(store: &SqliteStore, worker: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM workers WHERE id = ?").bind(worker).execute(&store.writer).await?;
    Ok(())
}

pub async fn create_key(store: &SqliteStore, key: &KeyRecord) -> Result<(), StoreError> {
    let mut change = Change::begin(store).await?;
    sqlx::query(
        "INSERT INTO tenants (id, weight, max_queued, max_running, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET weight = ?2, max_queued = ?3, max_running = ?4",
    )
    .bind(&key.tenant)
    .bind(key.weight)
    .bind(key.max_queued)
    .bind(key.max_running)
    .bind(change.now)
    .execute(change.connection())
    .await?;
    sqlx::query("INSERT INTO api_keys (id, sha256, tenant_id, created_at) VALUES (?, ?, ?, ?)")
        .bind(&key.id)
        .bind(&key.sha256[..])
        .bind(&key.tenant)
        .bind(change.now)
        .execute(change.connection())
        .await?;
    change.commit().await
}

/// Whether a key was ever made.
pub async fn has_keys(store: &SqliteStore) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)").fetch_one(&store.readers).await?)
}

pub async fn find_key(store: &SqliteStore, id: &str) -> Result<Option<KeyRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT api_keys.id, sha256, tenant_id, weight, max_queued, max_running FROM api_keys
         JOIN tenants ON tenants.id = tenant_id WHERE api_keys.id = ? AND revoked_at IS NULL",
    )
    .bind(id)
    .fetch_optional(&store.readers)
    .await?;
    let key = |row: SqliteRow| {
        Ok(KeyRecord {
            id: row.try_get("id")?,
            sha256: row::sha256(&row, "sha256")?,
            tenant: row.try_get("tenant_id")?,
            weight: row.try_get("weight")?,
            max_queued: row.try_get("max_queued")?,
            max_running: row.try_get("max_running")?,
        })
    };
    row.map(key).transpose()
}
