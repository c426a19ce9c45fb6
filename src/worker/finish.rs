//! The end of a run, in the ledger.

use std::time::{Duration, Instant};

use super::Worker;
use crate::{
    generation::{GenerationId, Record, Status},
    ledger::{Hint, Lease, Outcome, StoreError},
};

impl Worker {
    /// Writes the outcome, for as long as it takes and the lease allows: the ledger must not be left believing that the run
    /// goes on. Returns whether the generation is over.
    pub(super) async fn finish(&self, begun_record: &Record, lease: Lease, outcome: Outcome, begun: Instant) -> bool {
        let id = lease.id();
        let stored = matches!(outcome, Outcome::Succeeded(_));
        let written = self.write(&lease, outcome).await;
        self.leases.release(&lease);
        let Some(record) = written else {
            self.metrics.fenced_writes.inc();
            tracing::warn!(%id, fence = lease.fence(), "an outcome is thrown away, since the lease is another's");
            return false;
        };
        let is_over = record.status.is_terminal();
        if !is_over {
            tracing::info!(%id, "generation goes back to the queue");
            self.outbox.tell(Hint::Queued);
            return false;
        }
        self.erase_log(id).await;
        self.metrics.finished.with_label_values(&[record.status.as_str()]).inc();
        tracing::info!(%id, status = record.status.as_str(), ms = begun.elapsed().as_millis() as u64, "generation ended");
        match &record.status {
            Status::Failed { problem } => tracing::warn!(%id, code = problem.code, "{}", problem.message),
            Status::Succeeded { .. } => {
                self.metrics.run_seconds.observe(begun.elapsed().as_secs_f64());
                let together = self.metrics.running.get().max(1) as usize;
                self.throughput.record(begun.elapsed(), together, begun_record.generation.cost());
            }
            _ => {}
        }
        // An attempt before this one, or this one when it was canceled, may have stored pictures that do not count.
        if lease.fence() > 1 || (stored && record.status == Status::Canceled) {
            let winner = matches!(record.status, Status::Succeeded { .. }).then(|| lease.fence());
            self.erase_losers(id, winner).await;
        }
        self.live.event(id);
        true
    }

    /// `None`: the lease is lost.
    async fn write(&self, lease: &Lease, outcome: Outcome) -> Option<Record> {
        let (id, begun) = (lease.id(), Instant::now());
        let mut delay = Duration::from_millis(100);
        loop {
            // A worker that could not renew must not count on its result, but it may still be the only one: then it gives the
            // generation back, which counts as no crash.
            let is_sure = self.leases.allows(lease);
            let outcome = if is_sure { outcome.clone() } else { Outcome::Released };
            match tokio::time::timeout(self.patience(), self.store.finish(lease.clone(), outcome)).await {
                Ok(Ok(finished)) => return finished,
                Ok(Err(StoreError::Corrupt { .. })) => return None,
                Ok(Err(error)) => tracing::error!(%id, %error, "the outcome of a generation cannot be written yet"),
                Err(_) => tracing::error!(%id, "the outcome of a generation cannot be written yet: no answer"),
            }
            // By now others have taken it back.
            if !is_sure && begun.elapsed() > self.claimant.lease {
                return None;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(10)).min(self.claimant.lease);
        }
    }

    async fn erase_losers(&self, id: GenerationId, winner: Option<i64>) {
        if let Err(error) = self.blobs.delete_losers(id, winner).await {
            tracing::warn!(%id, %error, "pictures of attempts that do not count wait for the sweeper");
        }
    }
}
