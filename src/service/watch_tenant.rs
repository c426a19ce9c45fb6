//! Watches all generations of a tenant: their durable events in one order, the latest progress and previews of the
//! running ones, and what clients do with finished ones.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    sync::{broadcast, watch::Receiver},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::task::TaskTracker;

use super::{
    Live, ServiceError, Watched,
    live::{State, tenant_number},
};
use crate::{
    generation::{EventKind, GenerationId, OwnerChange, TenantEvent},
    ledger::{ListQuery, Reads, StoreError},
};

/// Maximum number of events that are read at a time. This bounds the memory of a watcher.
const PAGE: usize = 100;
/// Maximum number of running generations whose progress and previews a watcher receives. Durable events come from all
/// generations.
const MOST_RUNNING: usize = 64;
/// Maximum number of further running generations that a watcher remembers, to follow them when others end.
const MOST_LATER: usize = 1000;
/// Pause between two looks at the progress, so that a watcher gets the progress of each generation at most four times
/// per second.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);
/// Pause between two reads of the events, so that many events cost one read.
const EVENTS_PAUSE: Duration = Duration::from_millis(50);
/// Time after which the events are read although no process has announced new events.
const POLL: Duration = Duration::from_secs(2);

/// What a watcher of a tenant receives.
#[derive(Clone, Debug)]
pub struct TenantWatched {
    /// The generation.
    pub id: GenerationId,
    /// The number of a durable event among the tenant's events; a watcher can resume after it. `None` for progress,
    /// previews and changes by the owner.
    pub number: Option<i64>,
    pub watched: WatchedOfTenant,
}

/// What happened to a generation.
#[derive(Clone, Debug)]
pub enum WatchedOfTenant {
    Watched(Watched),
    /// A client has changed the finished generation.
    ChangedByOwner(OwnerChange),
}

impl TenantWatched {
    fn live(id: GenerationId, watched: Watched) -> TenantWatched {
        TenantWatched { id, number: None, watched: WatchedOfTenant::Watched(watched) }
    }
}

/// See [`Service::watch_tenant`](super::Service::watch_tenant).
pub(super) async fn watch(
    store: Arc<dyn Reads>,
    live: Live,
    tasks: TaskTracker,
    tenant: Arc<str>,
    after: i64,
) -> Result<impl Stream<Item = Result<TenantWatched, ServiceError>> + Send + use<>, ServiceError> {
    // The subscription precedes the first read, so that no event is missed between the two.
    let (events, owner_changes) = (live.all_events(), live.owner_changes());
    let query = ListQuery {
        limit: MOST_RUNNING + MOST_LATER,
        tenant: Some(tenant.to_string()),
        status: Some("running".to_owned()),
        ..ListQuery::default()
    };
    let running = store.list(&query).await?.records;
    let [poll, looks] = [POLL, PROGRESS_PAUSE].map(|pause| {
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let mut watcher = Watcher {
        store,
        live,
        tasks,
        tenant,
        after,
        events,
        owner_changes,
        has_all: false,
        poll,
        looks,
        running: BTreeMap::new(),
        later: BTreeSet::new(),
        due: VecDeque::new(),
    };
    running.iter().for_each(|record| watcher.follow(record.id));
    let first = watcher.read().await?;
    watcher.take(first);
    Ok(stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await, watcher)) }))
}

struct Watcher {
    store: Arc<dyn Reads>,
    live: Live,
    tasks: TaskTracker,
    tenant: Arc<str>,
    /// Number of the last durable event that was read.
    after: i64,
    events: Receiver<()>,
    owner_changes: broadcast::Receiver<(u64, GenerationId, OwnerChange)>,
    /// Whether the last read found no more events.
    has_all: bool,
    poll: Interval,
    looks: Interval,
    running: BTreeMap<GenerationId, Running>,
    /// Running generations beyond [`MOST_RUNNING`], which are followed when others end.
    later: BTreeSet<GenerationId>,
    due: VecDeque<TenantWatched>,
}

/// A running generation.
struct Running {
    receiver: Receiver<State>,
    /// The progress that was delivered last.
    progress: Option<super::Progress>,
    /// For each image, the (image, step) of the preview that was delivered last.
    previews: Vec<(u32, u32)>,
}

impl Watcher {
    async fn next(&mut self) -> Result<TenantWatched, ServiceError> {
        loop {
            if let Some(watched) = self.due.pop_front() {
                return Ok(watched);
            }
            if self.has_all {
                self.wait().await;
                continue;
            }
            let page = self.read().await?;
            self.has_all = page.is_empty();
            self.take(page);
        }
    }

    /// Waits until there may be new events, or there is progress to deliver.
    async fn wait(&mut self) {
        tokio::select! {
            // The wait cannot fail, because the sender lives as long as `live`.
            _ = self.events.changed() => {
                tokio::time::sleep(EVENTS_PAUSE).await;
                self.events.mark_unchanged();
                self.has_all = false;
            }
            changed = self.owner_changes.recv() => match changed {
                Ok((tenant, id, change)) if tenant == tenant_number(&self.tenant) => {
                    self.leave(id);
                    let watched = WatchedOfTenant::ChangedByOwner(change);
                    self.due.push_back(TenantWatched { id, number: None, watched });
                }
                // Another tenant's generation was changed, or this watcher was too slow and missed some changes.
                _ => {}
            },
            _ = self.poll.tick() => self.has_all = false,
            _ = self.looks.tick(), if !self.running.is_empty() => self.look(),
        }
    }

    /// The next events. Reads in a separate task: if its client is slow, a watcher is sometimes not polled for a while,
    /// and it must not hold a store connection during that time.
    async fn read(&self) -> Result<Vec<TenantEvent>, StoreError> {
        let (store, tenant, after) = (self.store.clone(), self.tenant.clone(), self.after);
        let read = self.tasks.spawn(async move { store.events_of(&tenant, after, PAGE).await });
        read.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
    }

    fn take(&mut self, page: Vec<TenantEvent>) {
        for TenantEvent { number, event } in page {
            self.after = number;
            let Some((id, event)) = event else { continue };
            match event.kind {
                EventKind::Started => self.follow(id),
                EventKind::Queued => {}
                EventKind::Retrying
                | EventKind::Succeeded
                | EventKind::Failed
                | EventKind::Canceled
                | EventKind::Expired => self.leave(id),
            }
            let watched = WatchedOfTenant::Watched(Watched::Event(event));
            self.due.push_back(TenantWatched { id, number: Some(number), watched });
        }
    }

    fn follow(&mut self, id: GenerationId) {
        if self.running.contains_key(&id) {
            return;
        }
        if self.running.len() < MOST_RUNNING {
            let receiver = self.live.subscribe(id);
            self.running.insert(id, Running { receiver, progress: None, previews: Vec::new() });
        } else if self.later.len() < MOST_LATER {
            self.later.insert(id);
        }
    }

    fn leave(&mut self, id: GenerationId) {
        self.later.remove(&id);
        if self.running.remove(&id).is_some() {
            self.live.release(id);
            if let Some(next) = self.later.pop_first() {
                self.follow(next);
            }
        }
    }

    /// Collects new progress and previews.
    fn look(&mut self) {
        let mut closed = Vec::new();
        for (id, running) in &mut self.running {
            if running.receiver.has_changed().is_err() {
                closed.push(*id);
                continue;
            }
            let state = running.receiver.borrow_and_update().clone();
            if state.progress != running.progress {
                running.progress = state.progress;
                let progress = state.progress.map(Watched::Progress);
                self.due.extend(progress.map(|watched| TenantWatched::live(*id, watched)));
            }
            for preview in state.previews {
                let step = (preview.index, preview.step);
                if !running.previews.contains(&step) {
                    running.previews.retain(|(index, _)| *index != preview.index);
                    running.previews.push(step);
                    self.due.push_back(TenantWatched::live(*id, Watched::Preview(preview)));
                }
            }
        }
        closed.into_iter().for_each(|id| self.leave(id));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for (id, running) in std::mem::take(&mut self.running) {
            drop(running);
            self.live.release(id);
        }
    }
}
