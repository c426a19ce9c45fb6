//! Estimates of the seconds of queued work, from the speeds at which workers have computed each model.
//!
//! A generation takes the seconds work ÷ speed, where work is the number of multiplications of its plan (rows × steps ×
//! what a network computes for its size). The speed is the speed of the model's generations that have succeeded lately,
//! on any worker. If no generation of the model has succeeded, it is the speed of all models together. If no generation
//! has succeeded at all, it is `queue.assumed_speed`.

use std::collections::HashMap;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{Ledger, Result, dialect::values, row::Row};

/// The factor by which the weight of a model's earlier generations falls when a further generation has ended. So about
/// the last 20 generations decide.
const KEPT: f64 = 0.95;

/// The expression that estimates the seconds of a new generation. Its parameters: model, work, speed to assume.
pub(super) fn estimate(model: &str, work: &str, assumed: &str) -> String {
    format!(
        "{work} / coalesce((SELECT work / seconds FROM model_speeds WHERE model = {model}),
                           (SELECT sum(work) / sum(seconds) FROM model_speeds), {assumed})"
    )
}

/// Generations of a model that have succeeded in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    pub generations: u32,
    /// In units of [`Acceptance::cost`](super::Acceptance::cost).
    pub work: f64,
    /// Seconds of the process. If a generation ran together with three others, a quarter of its seconds counts.
    pub seconds: f64,
}

/// The state of the store, as metrics show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    pub queued: usize,
    /// When the oldest queued generation was accepted, and the time of the database.
    pub oldest: Option<(OffsetDateTime, OffsetDateTime)>,
    /// Estimated seconds of the queued and running generations of each model.
    pub seconds: Vec<(String, f64)>,
    pub dead: usize,
    /// Connections of this process in use, and their maximum.
    pub connections: (usize, usize),
}

/// The methods of the ledger for estimates and metrics.
#[async_trait]
pub trait Estimates: AsRef<Ledger> + Send + Sync + 'static {
    /// Adds measurements to the speeds of the models. Measurements without work or time are skipped.
    async fn learn(&self, measured: &HashMap<String, Measured>) -> Result<()> {
        let text = "INSERT INTO model_speeds (model, work, seconds) VALUES ($1, $2, $3)
             ON CONFLICT (model) DO UPDATE SET work = model_speeds.work * $4 + excluded.work,
                 seconds = model_speeds.seconds * $4 + excluded.seconds";
        for (model, Measured { generations, work, seconds }) in measured {
            if *work > 0.0 && *seconds > 0.0 {
                let kept = KEPT.powi(i32::try_from(*generations).unwrap_or(i32::MAX));
                self.as_ref().write(text, values![model, *work, *seconds, kept]).await?;
            }
        }
        Ok(())
    }

    async fn census(&self) -> Result<Census> {
        let ledger = self.as_ref();
        // The connections are counted before the reads, which need connections themselves.
        let connections = ledger.db.connections();
        let text = "SELECT model, sum(estimated_s) AS seconds, count(CASE WHEN status = 'queued' THEN 1 END) AS queued,
                 min(CASE WHEN status = 'queued' THEN created_at END) AS oldest, now() AS now
             FROM generations INDEXED BY generations_status WHERE status IN ('queued', 'running') GROUP BY model";
        let rows = ledger.read(text, values![]).await?;
        let dead = "SELECT count(*) AS dead FROM generations INDEXED BY generations_dead WHERE dead";
        let dead = ledger.read_one(dead, values![]).await?;
        let mut census = Census { dead: dead.get("dead")?, connections, ..Census::default() };
        for row in &rows {
            let queued: usize = row.get("queued")?;
            census.queued += queued;
            census.seconds.push((row.get("model")?, row.get("seconds")?));
            let oldest = |row: &Row| Ok::<_, super::StoreError>((row.get("oldest")?, row.get("now")?));
            let oldest = if queued > 0 { Some(oldest(row)?) } else { None };
            census.oldest = census.oldest.into_iter().chain(oldest).min();
        }
        Ok(census)
    }
}
