//! The end of a run: writes the outcome to the ledger and removes leftover files.

use std::time::{Duration, Instant};

use super::Worker;
use crate::{
    generation::{GenerationId, Record, Status},
    ledger::{Hint, Lease, Outcome, StoreError},
};

/// The result of writing an outcome to the ledger.
enum Written {
    /// The outcome is in the ledger, which now has this record of the generation.
    Record(Box<Record>),
    /// The lease is lost.
    Fenced,
    /// The stored generation is corrupt.
    Nothing,
}

impl Written {
    /// The label of an attempt in the metric of attempts. `outcome` is the label of the outcome that the worker
    /// reported.
    fn label(&self, outcome: &'static str) -> &'static str {
        match self {
            Written::Fenced => "fenced",
            // The client canceled the generation while the outcome was written.
            Written::Record(record) if record.status == Status::Canceled => "canceled",
            Written::Record(_) | Written::Nothing => outcome,
        }
    }
}

fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded(_) => "succeeded",
        Outcome::Failed(_) => "failed",
        Outcome::Canceled => "canceled",
        Outcome::Released => "released",
        Outcome::Retry { .. } => "retry",
        Outcome::DeviceLost { .. } => "device_lost",
    }
}

impl Worker {
    /// Writes the outcome, with retries, because the ledger lists the generation as running until the outcome is
    /// written. Once the lease is not trusted any more, tries to release the generation instead, and gives up when more
    /// than one lease time has passed since the first try. (With SQLite, leases are always trusted, so the worker
    /// retries until the store answers.) Then notifies the watchers, and if the generation has ended, deletes the files
    /// that are no longer needed.
    pub(super) async fn finish(&self, lease: Lease, outcome: Outcome, begun: Instant) {
        let (id, ended) = (lease.id(), label(&outcome));
        let written = self.write(&lease, outcome).await;
        self.metrics.attempts.with_label_values(&[written.label(ended)]).inc();
        self.leases.release(&lease);
        self.outbox.tell(Hint::Changed(id));
        match written {
            Written::Nothing => self.live.pause(&lease),
            Written::Fenced => {
                self.metrics.fenced_writes.inc();
                tracing::warn!(%id, fence = lease.fence(), "an outcome is discarded, because the lease is lost");
                self.live.pause(&lease);
            }
            Written::Record(record) if record.status.is_terminal() => {
                self.note_end(&lease, &record, begun);
                self.live.close(id);
                self.erase_leftovers(&lease, &record).await;
            }
            Written::Record(_) => {
                tracing::info!(%id, "generation goes back to the queue");
                self.outbox.tell(Hint::Queued);
                self.live.pause(&lease);
            }
        }
    }

    /// Logs the end of a generation and updates metrics and throughput.
    fn note_end(&self, lease: &Lease, record: &Record, begun: Instant) {
        let (id, status) = (record.id, record.status.as_str());
        self.metrics.count_end(record);
        tracing::info!(%id, status, ms = begun.elapsed().as_millis() as u64, "generation ended");
        match &record.status {
            Status::Failed { problem } => tracing::warn!(%id, code = problem.code, "{}", problem.message),
            Status::Succeeded { .. } => {
                self.metrics.run_seconds.observe(begun.elapsed().as_secs_f64());
                let together = self.metrics.running.get().max(1) as usize;
                if let Some(plan) = self.catalogue.plan(&record.job) {
                    self.throughput.record(&record.job.model, begun.elapsed(), together, plan.cost);
                    // A later attempt may have continued from a log, so its time says nothing about the work.
                    if lease.fence() == 1 {
                        self.throughput.measure(&record.job.model, begun.elapsed(), together, plan.cost);
                    }
                }
            }
            _ => {}
        }
    }

    /// Deletes the log, and the artifacts of all attempts except the one that succeeded. If no attempt succeeded,
    /// deletes the artifacts of all attempts. Deletes everything, also the request's pictures, if the pictures of the
    /// generation are blocked.
    async fn erase_leftovers(&self, lease: &Lease, record: &Record) {
        let id = record.id;
        if record.is_content_filtered() {
            if let Err(error) = self.blobs.delete_generation(id).await {
                tracing::warn!(%id, %error, "the files of a blocked generation stay until the next sweep");
            }
            return;
        }
        if let Err(error) = self.blobs.delete_log(id).await {
            tracing::warn!(%id, %error, "the log of an ended generation stays until the next sweep");
        }
        let winner = matches!(record.status, Status::Succeeded { .. }).then(|| lease.fence());
        if lease.fence() > 1 || winner.is_none() {
            self.erase_losers(id, winner).await;
        }
    }

    /// Tries to write the outcome until the store answers or, if the lease is not trusted, one lease time has passed.
    async fn write(&self, lease: &Lease, outcome: Outcome) -> Written {
        let (id, begun) = (lease.id(), Instant::now());
        let mut delay = Duration::from_millis(100);
        loop {
            // A worker that could not renew its lease must not write its result, but it may still own the generation.
            // Therefore, it tries to release the generation, which does not count as a crash.
            let is_sure = self.leases.allows(lease);
            let outcome = if is_sure { outcome.clone() } else { Outcome::Released };
            match tokio::time::timeout(self.patience(), self.store.finish(lease.clone(), outcome)).await {
                Ok(Ok(finished)) => {
                    return finished.map_or(Written::Fenced, |record| Written::Record(Box::new(record)));
                }
                Ok(Err(error @ StoreError::Corrupt { .. })) => {
                    tracing::error!(%id, %error, "the outcome of a generation cannot be written");
                    return Written::Nothing;
                }
                Ok(Err(error)) => tracing::error!(%id, %error, "the outcome of a generation cannot be written yet"),
                Err(_) => tracing::error!(%id, "the outcome of a generation cannot be written yet: no answer"),
            }
            // By now, another worker has had the time to take the generation back.
            if !is_sure && begun.elapsed() > self.claimant.lease {
                return Written::Fenced;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(10)).min(self.claimant.lease);
        }
    }

    async fn erase_losers(&self, id: GenerationId, winner: Option<i64>) {
        if let Err(error) = self.blobs.delete_losers(id, winner).await {
            tracing::warn!(%id, %error, "artifacts of attempts that did not succeed stay until the next sweep");
        }
    }
}
