//! The worker's heartbeat: renews leases, reports to the store, and cancels runs whose lease is lost or whose client
//! canceled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::{
    engine::Reason,
    ledger::{Heartbeat, Lease, StoreError},
};

impl Worker {
    /// Sends heartbeats until `stop`, which must not be canceled before the last run has ended.
    pub(super) async fn send_heartbeats(self: Arc<Self>, stop: CancellationToken) {
        let mut reported = None;
        loop {
            // Both requests end when the next heartbeat is due, because a later answer is useless. The requests run
            // concurrently, so at most two heartbeat intervals pass between two checks for lapsed leases.
            let (renewed, shown) = tokio::join!(
                tokio::time::timeout(self.heartbeat, self.renew()),
                tokio::time::timeout(self.heartbeat, self.show(&mut reported)),
            );
            match renewed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "leases cannot be renewed"),
                Err(_) => tracing::warn!("leases cannot be renewed: the database does not answer"),
            }
            if let Ok(Err(error)) = shown {
                tracing::warn!(%error, "the heartbeat cannot be stored");
            }
            for lease in self.leases.lapsed() {
                self.lose(&lease, "it could not be renewed in time");
            }
            tokio::select! {
                () = tokio::time::sleep(self.heartbeat) => {}
                // An operator may have drained the worker. Only the answer to a report says so. If `reported` is
                // `None`, the next heartbeat is a report.
                () = self.drain.announced() => reported = None,
                () = stop.cancelled() => return,
            }
        }
    }

    /// Renews all leases, and cancels runs whose lease was not renewed or whose client requested the cancellation.
    async fn renew(&self) -> Result<(), StoreError> {
        let leases = self.leases.all();
        if leases.is_empty() || !self.store.is_shared() {
            return Ok(());
        }
        let asked_at = Instant::now();
        let renewed = self.store.renew(&self.claimant, &leases).await?;
        for lease in &leases {
            match renewed.iter().find(|renewed| (renewed.id, renewed.fence) == (lease.id(), lease.fence())) {
                Some(renewed) => {
                    self.leases.renew(lease.id(), lease.fence(), asked_at);
                    if renewed.cancel_requested {
                        self.live.cancel(lease.id(), Reason::Canceled);
                    }
                }
                // A lease whose generation ended during the request is not held any more, so `lose` ignores it.
                None => self.lose(lease, "another worker has the generation"),
            }
        }
        Ok(())
    }

    /// Gives up a lease and cancels its run.
    fn lose(&self, lease: &Lease, why: &str) {
        if self.leases.release(lease) {
            tracing::warn!(id = %lease.id(), fence = lease.fence(), "a lease is lost: {why}");
            self.metrics.leases_lost.inc();
            self.live.cancel(lease.id(), Reason::Lost);
        }
    }

    /// Reports the worker's state to the store, and learns whether the worker should drain. If the store is not shared,
    /// reports only changes.
    async fn show(&self, reported: &mut Option<(u32, Option<f64>)>) -> Result<(), StoreError> {
        let measured = self.throughput.take_measured();
        if !measured.is_empty() {
            self.store.learn(&measured).await?;
        }
        let now = (self.runs.len() as u32, self.throughput.speed());
        if !self.store.is_shared() && *reported == Some(now) {
            return Ok(());
        }
        let heartbeat = Heartbeat {
            worker: self.claimant.worker.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            models: self.catalogue.names(),
            running: now.0,
            speed: now.1,
        };
        let drains = self.store.heartbeat(&heartbeat).await?;
        *reported = Some(now);
        if self.drain.set(drains) {
            match drains {
                true => tracing::info!("the worker takes no more work, as an operator has asked"),
                false => tracing::info!("the worker takes work again, as an operator has asked"),
            }
            self.wake.notify_one();
        }
        Ok(())
    }

    /// How long one try to write an outcome may take before the next try.
    pub(super) fn patience(&self) -> Duration {
        self.heartbeat.max(Duration::from_secs(1)) * 2
    }
}
