//! Updates the metrics of what is in the store: the queue, its estimated work, dead generations, and connections.

use std::{collections::BTreeSet, time::Duration};

use super::Sweeper;
use crate::{ledger::StoreError, metrics::Metrics};

/// Time between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

impl Sweeper {
    /// Updates the metrics. `models` are the models that have had work: when one of them has no work, its metrics show
    /// 0, so that queries for it keep an answer.
    pub(super) async fn count(&self, models: &mut BTreeSet<String>) -> Result<(), StoreError> {
        let Metrics { queued, queue_oldest, queue_work, dead, database_used, database_most, .. } = &self.metrics;
        let census = self.store.census().await?;
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        queued.set(number(census.queued));
        queue_oldest.set(census.oldest.map_or(0.0, |(accepted, now)| (now - accepted).as_seconds_f64().max(0.0)));
        dead.set(number(census.dead));
        database_used.set(number(census.connections.0));
        database_most.set(number(census.connections.1));
        models.iter().for_each(|model| queue_work.with_label_values(&[model]).set(0.0));
        for (model, seconds) in census.seconds {
            queue_work.with_label_values(&[&model]).set(seconds);
            models.insert(model);
        }
        Ok(())
    }
}
