//! Signs of life: leases are renewed, and what is lost or canceled is stopped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::{
    engine::Reason,
    ledger::{Beat, Lease, StoreError},
};

impl Worker {
    /// Beats until it is stopped, which must not be before the last run has ended.
    pub(super) async fn beat(self: Arc<Self>, stop: CancellationToken) {
        let mut told = None;
        loop {
            // An answer that comes later than the next beat is due is no use. Both are waited for together, so that no more
            // than two beats lie between two looks at what has lapsed.
            let (renewed, shown) = tokio::join!(
                tokio::time::timeout(self.heartbeat, self.renew()),
                tokio::time::timeout(self.heartbeat, self.show(&mut told)),
            );
            match renewed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "leases cannot be renewed"),
                Err(_) => tracing::warn!("leases cannot be renewed: the database does not answer"),
            }
            if let Ok(Err(error)) = shown {
                tracing::warn!(%error, "the worker cannot show that it lives");
            }
            for lease in self.leases.lapsed() {
                self.lose(&lease, "it could not be renewed in time");
            }
            tokio::select! {
                () = tokio::time::sleep(self.heartbeat) => {}
                // Orders come back with what it tells.
                () = self.drain.announced() => told = None,
                () = stop.cancelled() => return,
            }
        }
    }

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
                // One that ended while this was asked is not held any more.
                None => self.lose(lease, "another worker has the generation"),
            }
        }
        Ok(())
    }

    fn lose(&self, lease: &Lease, why: &str) {
        if self.leases.release(lease) {
            tracing::warn!(id = %lease.id(), fence = lease.fence(), "a lease is lost: {why}");
            self.metrics.leases_lost.inc();
            self.live.cancel(lease.id(), Reason::Lost);
        }
    }

    /// Tells what it is at, and hears whether it shall go on. Where nobody shares the store, only what is new.
    async fn show(&self, told: &mut Option<(u32, Option<f64>)>) -> Result<(), StoreError> {
        let now = (self.runs.len() as u32, self.throughput.speed());
        if !self.store.is_shared() && *told == Some(now) {
            return Ok(());
        }
        let beat = Beat {
            worker: self.claimant.worker.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            models: self.catalogue.names(),
            running: now.0,
            speed: now.1,
        };
        let drains = self.store.beat(&beat).await?;
        *told = Some(now);
        if self.drain.set(drains) {
            match drains {
                true => tracing::info!("the worker takes no more work, as an operator has asked"),
                false => tracing::info!("the worker takes work again, as an operator has asked"),
            }
            self.wake.notify_one();
        }
        Ok(())
    }

    /// For a store that answers slowly or not at all: how long a try to write an outcome may take.
    pub(super) fn patience(&self) -> Duration {
        self.heartbeat.max(Duration::from_secs(1)) * 2
    }
}
