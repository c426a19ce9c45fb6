//! What processes share through the store: workers, progress, previews, hints.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    Heartbeat, Hint, Ledger, Report, Result, Snapshot, WorkerRecord,
    dialect::{Value, values},
    reports,
    row::{Row, from_row},
};
use crate::generation::{GenerationId, Preview};

/// A worker that has sent no heartbeat for this long is gone.
pub const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The methods of the ledger for workers, progress, previews and hints.
#[async_trait]
pub trait Fleet: AsRef<Ledger> + Send + Sync + 'static {
    /// Whether other processes use the store at the same time, so that processes inform each other through the store.
    fn is_shared(&self) -> bool {
        self.as_ref().db.is_shared()
    }

    /// Stores progress and previews of running attempts for other processes. Ignores reports under lost leases.
    async fn report(&self, reports: &[Report]) -> Result<()> {
        // The only process of a store sees its own progress in memory.
        if reports.is_empty() || !self.is_shared() {
            return Ok(());
        }
        self.as_ref().write(reports::REPORT, reports::tables(reports)?).await.map(drop)
    }

    /// The states of these generations as other processes see them. Missing generations are left out.
    async fn snapshots(&self, ids: &[GenerationId]) -> Result<Vec<Snapshot>> {
        let rows = self.as_ref().read(&reports::snapshots(self.is_shared()), values![Value::ids(ids)]).await?;
        let seen = |row: &Row| {
            // Another version may have written progress that this one cannot read; progress is only for display.
            let progress = row.json("progress").unwrap_or_default();
            Ok(
                from_row!(row => Snapshot { id, last_event, is_over; progress: progress, previews: row.json("previews")? }),
            )
        };
        rows.iter().map(seen).collect()
    }

    /// The newest reported preview of each artifact.
    async fn previews(&self, id: GenerationId) -> Result<Vec<Preview>> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        let text = "SELECT artifact AS index, step, preview_index, media_type, bytes FROM artifact_previews
             JOIN generations ON generations.id = generation_id AND generations.fence = artifact_previews.fence
             WHERE generation_id = $1 ORDER BY artifact";
        let preview = |row: &Row| Ok(from_row!(row => Preview { index, step, preview_index, media_type, bytes }));
        self.as_ref().read(text, values![id]).await?.iter().map(preview).collect()
    }

    /// Asks other processes to look now at what they would look at within a second anyway. Hints may be lost.
    async fn hint(&self, hints: &[Hint]) -> Result<()> {
        let ledger = self.as_ref();
        ledger.bounded(|| ledger.db.hint(hints)).await
    }

    /// The hints of other processes from now on. Never ends; silent if the store is not shared or has no hints.
    fn hints(&self) -> BoxStream<'static, Hint> {
        self.as_ref().db.hints()
    }

    /// Stores a worker's heartbeat. Returns whether an operator has asked the worker to take no more work.
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<bool> {
        let text = "INSERT INTO workers (id, version, models, running, speed, started_at, beaten_at)
             VALUES ($1, $2, $3, $4, $5, now(), now())
             ON CONFLICT (id) DO UPDATE SET models = excluded.models, running = excluded.running,
                 speed = excluded.speed, beaten_at = excluded.beaten_at RETURNING draining";
        let models = Value::json(&heartbeat.models)?;
        let values = values![&heartbeat.worker, &heartbeat.version, models, heartbeat.running, heartbeat.speed];
        let row = self.as_ref().write(text, values).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
        Ok(row.get("draining")?)
    }

    /// The workers that have sent a heartbeat within the last hour, in the order of their names.
    async fn workers(&self) -> Result<Vec<WorkerRecord>> {
        let text = "SELECT id AS worker, version, models, running, speed, draining, started_at, beaten_at FROM workers
             WHERE beaten_at > now() - $1 ORDER BY id";
        let worker = |row: &Row| {
            let heartbeat =
                from_row!(row => Heartbeat { worker, version, running, speed; models: row.json("models")? });
            Ok(from_row!(row => WorkerRecord { started_at, beaten_at, draining; heartbeat: heartbeat }))
        };
        self.as_ref().read(text, values![FORGOTTEN]).await?.iter().map(worker).collect()
    }

    /// Asks a worker to take no more work, or, if `drain` is false, to take work again. The worker learns of this from
    /// its next [`Fleet::heartbeat`]. Returns whether the worker exists.
    async fn drain_worker(&self, worker: &str, drain: bool) -> Result<bool> {
        // No worker's name contains a zero byte, and PostgreSQL refuses such a text.
        if worker.contains('\0') {
            return Ok(false);
        }
        let drained = "UPDATE workers SET draining = $2 WHERE id = $1 RETURNING id";
        Ok(!self.as_ref().write(drained, values![worker, drain]).await?.is_empty())
    }

    /// Removes the record of a worker that stops without a crash.
    async fn leave(&self, worker: &str) -> Result<()> {
        self.as_ref().write("DELETE FROM workers WHERE id = $1", values![worker]).await.map(drop)
    }
}
