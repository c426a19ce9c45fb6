//! What processes know of each other.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    Beat, Glance, Hint, Ledger, Report, Result, WorkerRecord,
    dialect::{Value, values},
    reports,
    row::{Row, from_row},
};
use crate::generation::{GenerationId, Preview};

/// A worker that has not beaten for so long is gone.
pub const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The tables of workers, of progress and of previews.
#[async_trait]
pub trait Fleet: AsRef<Ledger> + Send + Sync + 'static {
    /// Whether other processes use the store at the same time, so that they must hear of each other through it.
    fn is_shared(&self) -> bool {
        self.as_ref().db.is_shared()
    }

    /// Leaves progress and previews for other processes to see; they survive nothing. Where a lease is lost, nothing.
    async fn report(&self, reports: &[Report]) -> Result<()> {
        // The only process sees its own progress.
        if reports.is_empty() || !self.is_shared() {
            return Ok(());
        }
        self.as_ref().write(reports::REPORT, reports::tables(reports)?).await.map(drop)
    }

    /// What a watcher in another process sees of these generations; those that are gone are left out.
    async fn glance(&self, ids: &[GenerationId]) -> Result<Vec<Glance>> {
        let rows = self.as_ref().read(&reports::glance(self.is_shared()), values![Value::ids(ids)]).await?;
        let seen = |row: &Row| {
            // What another version of this program has written may be unreadable, and is only for show.
            let progress = row.json("progress").unwrap_or_default();
            Ok(
                from_row!(row => Glance { id, last_event, is_over; progress: progress, previews: row.json("previews")? }),
            )
        };
        rows.iter().map(seen).collect()
    }

    /// The previews that were reported, the latest of each artifact.
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

    /// Tells other processes to look at once at what they would look at within a second anyway. Hints may be lost.
    async fn hint(&self, hints: &[Hint]) -> Result<()> {
        let ledger = self.as_ref();
        ledger.bounded(|| ledger.db.hint(hints)).await
    }

    /// What other processes hint at, from now on. Never ends; silent where the store is not shared or cannot hint.
    fn hints(&self) -> BoxStream<'static, Hint> {
        self.as_ref().db.hints()
    }

    /// A worker shows that it lives; returns whether an operator has asked it to take no more work.
    async fn beat(&self, beat: &Beat) -> Result<bool> {
        let text = "INSERT INTO workers (id, version, models, running, speed, started_at, beaten_at)
             VALUES ($1, $2, $3, $4, $5, now(), now())
             ON CONFLICT (id) DO UPDATE SET models = excluded.models, running = excluded.running,
                 speed = excluded.speed, beaten_at = excluded.beaten_at RETURNING draining";
        let models = Value::json(&beat.models)?;
        let values = values![&beat.worker, &beat.version, models, beat.running, beat.speed];
        let row = self.as_ref().write(text, values).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
        Ok(row.get("draining")?)
    }

    /// The workers that have beaten within the last hour, by name.
    async fn workers(&self) -> Result<Vec<WorkerRecord>> {
        let text = "SELECT id AS worker, version, models, running, speed, draining, started_at, beaten_at FROM workers
             WHERE beaten_at > now() - $1 ORDER BY id";
        let worker = |row: &Row| {
            let beat = from_row!(row => Beat { worker, version, running, speed; models: row.json("models")? });
            Ok(from_row!(row => WorkerRecord { started_at, beaten_at, draining; beat: beat }))
        };
        self.as_ref().read(text, values![FORGOTTEN]).await?.iter().map(worker).collect()
    }

    /// Asks a worker to take no more work, or with `false` to take work again, which its next [`Fleet::beat`] tells it; whether
    /// there is one of that name.
    async fn drain_worker(&self, worker: &str, drain: bool) -> Result<bool> {
        // No worker has such a name, and PostgreSQL no such text.
        if worker.contains('\0') {
            return Ok(false);
        }
        let drained = "UPDATE workers SET draining = $2 WHERE id = $1 RETURNING id";
        Ok(!self.as_ref().write(drained, values![worker, drain]).await?.is_empty())
    }

    /// The worker has ended in order.
    async fn leave(&self, worker: &str) -> Result<()> {
        self.as_ref().write("DELETE FROM workers WHERE id = $1", values![worker]).await.map(drop)
    }
}
