//! Communication between the processes that share a store. Each process polls the store every second; hints only make
//! changes visible sooner.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Drain, KeyCache, Live};
use crate::{
    engine::Reason,
    generation::GenerationId,
    ledger::{Fleet, Hint, StoreError},
};

/// Unsent hints for other processes, without duplicates. Cloning gives another handle of the same outbox.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<Vec<Hint>>>);

/// Maximum number of hints that wait to be sent, and of received hints that wait to be handled. A change whose hint is
/// dropped becomes visible at the next poll of the store.
const MOST_HINTS: usize = 1000;

impl Outbox {
    pub fn tell(&self, hint: Hint) {
        let mut hints = self.0.lock();
        if hints.len() < MOST_HINTS && !hints.contains(&hint) {
            hints.push(hint);
        }
    }

    fn take(&self) -> Vec<Hint> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Exchanges hints, progress and previews with other processes until stopped.
pub struct Bus {
    pub store: Arc<dyn Fleet>,
    pub live: Live,
    pub outbox: Outbox,
    /// Wakes the worker when there is a generation to claim.
    pub wake: Arc<Notify>,
    /// Tells the worker that the operator may have drained it.
    pub drain: Drain,
    /// The cache of keys, which is cleared when another process has revoked or rotated a key.
    pub keys: KeyCache,
}

/// How long hints are collected, so that a burst becomes one message.
const HINT_INTERVAL: Duration = Duration::from_millis(50);
/// Time between two reports of progress. Each report covers all runs of this process.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two polls of the store.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of generations in one query.
const MAX_IDS: usize = 500;

impl Bus {
    /// Runs until `stop`; returns at once if no other process can share the store.
    pub async fn run(self, stop: CancellationToken) {
        if !self.store.is_shared() {
            return;
        }
        let [mut tell, mut report, mut look] = [HINT_INTERVAL, REPORT_INTERVAL, LOOK_INTERVAL].map(|period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let mut hints = self.store.hints();
        let mut hinted = BTreeSet::new();
        loop {
            let done = tokio::select! {
                Some(hint) = hints.next() => {
                    self.hear(hint, &mut hinted);
                    Ok(())
                }
                _ = tell.tick() => self.tell(&mut hinted).await,
                _ = report.tick() => self.report().await,
                _ = look.tick() => self.look(self.live.followed()).await,
                () = stop.cancelled() => break,
            };
            if let Err(error) = done {
                tracing::warn!(%error, "hints and progress cannot be exchanged with other processes for now");
            }
        }
        // A last hint lets other processes claim at once what the worker of this process has given back.
        if let Err(error) = self.store.hint(&self.outbox.take()).await {
            tracing::warn!(%error, "the last hints cannot be sent; other processes see the changes at their next poll");
        }
    }

    fn hear(&self, hint: Hint, hinted: &mut BTreeSet<GenerationId>) {
        match hint {
            Hint::Queued => {
                self.wake.notify_one();
                self.live.announce();
            }
            Hint::DrainChanged => self.drain.announce(),
            Hint::KeysChanged => self.keys.clear(),
            Hint::ChangedByOwner(change, id, tenant) => self.live.changed_by_owner(change, id, tenant),
            Hint::Canceled(id) => self.live.cancel(id, Reason::Canceled),
            Hint::Changed(id) => {
                self.live.announce();
                if hinted.len() < MOST_HINTS {
                    hinted.insert(id);
                }
            }
        }
    }

    /// Sends the collected hints, and polls the generations that other processes have hinted at.
    async fn tell(&self, hinted: &mut BTreeSet<GenerationId>) -> Result<(), StoreError> {
        let hints = self.outbox.take();
        if !hints.is_empty() {
            self.store.hint(&hints).await?;
        }
        let hinted = std::mem::take(hinted);
        if hinted.is_empty() {
            return Ok(());
        }
        self.look(self.live.followed().into_iter().filter(|id| hinted.contains(id)).collect()).await
    }

    async fn report(&self) -> Result<(), StoreError> {
        let reports = self.live.reports();
        if reports.is_empty() {
            return Ok(());
        }
        self.store.report(&reports).await?;
        self.live.reported(&reports);
        reports.iter().for_each(|report| self.outbox.tell(Hint::Changed(report.lease.id())));
        Ok(())
    }

    async fn look(&self, followed: Vec<GenerationId>) -> Result<(), StoreError> {
        for ids in followed.chunks(MAX_IDS) {
            let snapshots = self.store.snapshots(ids).await?;
            for snapshot in &snapshots {
                if self.live.apply_snapshot(snapshot) {
                    for preview in self.store.previews(snapshot.id).await? {
                        self.live.preview(snapshot.id, preview);
                    }
                }
            }
            // Generations without a snapshot were erased, so no further events follow, and the channels of their
            // watchers are closed.
            let gone = ids.iter().filter(|id| snapshots.iter().all(|snapshot| snapshot.id != **id));
            gone.for_each(|id| self.live.close_unless_running(*id));
        }
        Ok(())
    }
}
