//! Between the processes that share a store: what this one tells the others, and what it looks at for its own watchers. The
//! store is the truth and is looked at every second; hints only make it sooner.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Drain, Live};
use crate::{
    engine::Reason,
    generation::GenerationId,
    ledger::{Fleet, Hint, StoreError},
};

/// Hints on their way to the other processes. A cheap handle; each hint is in it once.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<Vec<Hint>>>);

/// More than anybody would look at: then the others find out within a second all the same.
const MOST_HINTS: usize = 1000;

impl Outbox {
    pub fn tell(&self, hint: Hint) {
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hints.len() < MOST_HINTS && !hints.contains(&hint) {
            hints.push(hint);
        }
    }

    fn take(&self) -> Vec<Hint> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Carries hints, progress and previews until it is stopped.
pub struct Bus {
    pub store: Arc<dyn Fleet>,
    pub live: Live,
    pub outbox: Outbox,
    /// Tells the worker that there is something to claim.
    pub wake: Arc<Notify>,
    /// Tells the worker that there may be orders.
    pub drain: Drain,
}

/// Hints are collected for so long, so that a burst of them is one message.
const HINT_INTERVAL: Duration = Duration::from_millis(50);
/// At most two writes of progress a second, of all runs together.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Generations that are looked at in one query.
const PORTION: usize = 500;

impl Bus {
    /// Returns at once where no other process can share the store.
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
                tracing::warn!(%error, "other processes cannot be heard or told of progress for now");
            }
        }
        // What a worker gives back is taken up at once by those who hear of it.
        if let Err(error) = self.store.hint(&self.outbox.take()).await {
            tracing::warn!(%error, "other processes find out for themselves what this one has given back");
        }
    }

    fn hear(&self, hint: Hint, hinted: &mut BTreeSet<GenerationId>) {
        match hint {
            Hint::Queued => self.wake.notify_one(),
            Hint::Orders => self.drain.announce(),
            Hint::Canceled(id) => self.live.cancel(id, Reason::Canceled),
            Hint::Changed(id) if hinted.len() < MOST_HINTS => drop(hinted.insert(id)),
            Hint::Changed(_) => {}
        }
    }

    /// Sends what was collected, and looks at what others have hinted at.
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
        reports.iter().for_each(|report| self.outbox.tell(Hint::Changed(report.lease.id())));
        Ok(())
    }

    async fn look(&self, followed: Vec<GenerationId>) -> Result<(), StoreError> {
        for ids in followed.chunks(PORTION) {
            let glances = self.store.glance(ids).await?;
            for glance in &glances {
                if self.live.seen(glance) {
                    for preview in self.store.previews(glance.id).await? {
                        self.live.preview(glance.id, preview);
                    }
                }
            }
            // One that was erased has nothing more to tell.
            let gone = ids.iter().filter(|id| glances.iter().all(|glance| glance.id != **id));
            gone.for_each(|id| self.live.close_unless_running(*id));
        }
        Ok(())
    }
}
