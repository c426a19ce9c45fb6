//! Workers, what processes hint at, and keys.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    Beat, Fleet, Glance, Hint, KeyRecord, Keys, Ledger, Orders, Report, StoreError, WorkerRecord,
    change::atomically,
    dialect::{Columns, Dialect, Value, values},
};
use crate::generation::{GenerationId, Preview};

/// A worker that has not beaten for so long is gone.
pub const FORGOTTEN: Duration = Duration::from_secs(3600);

#[async_trait]
impl<D: Dialect> Fleet for Ledger<D> {
    fn is_shared(&self) -> bool {
        D::IS_SHARED
    }

    async fn report(&self, reports: &[Report]) -> Result<(), StoreError> {
        self.show(reports).await
    }

    async fn glance(&self, ids: &[GenerationId]) -> Result<Vec<Glance>, StoreError> {
        self.seen_from_afar(ids).await
    }

    async fn previews(&self, id: GenerationId) -> Result<Vec<Preview>, StoreError> {
        self.shown(id).await
    }

    async fn hint(&self, hints: &[Hint]) -> Result<(), StoreError> {
        self.db.bounded(|| self.db.hint(hints)).await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        self.db.hints()
    }

    async fn beat(&self, beat: &Beat) -> Result<Orders, StoreError> {
        let text = "INSERT INTO workers (id, version, models, running, speed, started_at, beaten_at)
             VALUES ($1, $2, $3, $4, $5, now(), now())
             ON CONFLICT (id) DO UPDATE SET models = excluded.models, running = excluded.running,
                 speed = excluded.speed, beaten_at = excluded.beaten_at
             RETURNING draining";
        let models = Value::json(&beat.models)?;
        let row = self.write(text, values![&beat.worker, &beat.version, models, beat.running, beat.speed]).await?;
        let row = row.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Orders { drain: row.get("draining")? })
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let text = "SELECT id, version, models, running, speed, draining, started_at, beaten_at FROM workers
             WHERE beaten_at > now() - $1 ORDER BY id";
        let worker = |row: &D::Row| {
            let beat = Beat {
                worker: row.get("id")?,
                version: row.get("version")?,
                models: row.value("models")?,
                running: row.get("running")?,
                speed: row.opt("speed")?,
            };
            let (started_at, beaten_at) = (row.get("started_at")?, row.get("beaten_at")?);
            Ok(WorkerRecord { beat, started_at, beaten_at, draining: row.get("draining")? })
        };
        self.read(text, values![FORGOTTEN]).await?.iter().map(worker).collect()
    }

    async fn drain_worker(&self, worker: &str, drain: bool) -> Result<bool, StoreError> {
        // No worker has such a name, and PostgreSQL no such text.
        if worker.contains('\0') {
            return Ok(false);
        }
        let drained = "UPDATE workers SET draining = $2 WHERE id = $1 RETURNING id";
        Ok(!self.write(drained, values![worker, drain]).await?.is_empty())
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.write("DELETE FROM workers WHERE id = $1", values![worker]).await.map(drop)
    }
}

#[async_trait]
impl<D: Dialect> Keys for Ledger<D> {
    async fn create_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        atomically!(self, |change| {
            let text =
                "INSERT INTO tenants (id, weight, max_queued, max_running, created_at) VALUES ($1, $2, $3, $4, now())
             ON CONFLICT (id) DO UPDATE SET weight = excluded.weight, max_queued = excluded.max_queued,
                 max_running = excluded.max_running";
            change.fetch(text, values![&key.tenant, key.weight, key.max_queued, key.max_running]).await?;
            let text = "INSERT INTO api_keys (id, sha256, tenant_id, created_at) VALUES ($1, $2, $3, now())";
            change.fetch(text, values![&key.id, &key.sha256, &key.tenant]).await?;
            Ok(())
        })
    }

    async fn has_keys(&self) -> Result<bool, StoreError> {
        let any = "SELECT EXISTS (SELECT 1 FROM api_keys) AS has_keys";
        Ok(self.read_one(any, values![]).await?.get("has_keys")?)
    }

    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        let text = "SELECT api_keys.id AS id, sha256, tenant_id, weight, max_queued, max_running FROM api_keys
             JOIN tenants ON tenants.id = tenant_id WHERE api_keys.id = $1 AND revoked_at IS NULL";
        let key = |row: D::Row| {
            Ok(KeyRecord {
                id: row.get("id")?,
                sha256: row.get("sha256")?,
                tenant: row.get("tenant_id")?,
                weight: row.get("weight")?,
                max_queued: row.opt("max_queued")?,
                max_running: row.opt("max_running")?,
            })
        };
        self.read_first(text, values![id]).await?.map(key).transpose()
    }
}
