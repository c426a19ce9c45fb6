//! The present state of generations: their latest progress and previews, without a history. The worker reports the
//! generations that this process runs; the [`Bus`](super::Bus) reports watched generations of other processes.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Cancel, Reason},
    generation::{GenerationId, OwnerChange},
    ledger::{Lease, Report, Snapshot},
};

pub use crate::generation::{Phase, Preview, Progress};

/// The present state of a generation, as watchers see it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Grows with every durable event, so that watchers know when to read the events.
    pub events: u64,
    pub progress: Option<Progress>,
    /// The latest preview of each image.
    pub previews: Vec<Preview>,
}

/// The states of all generations that run or are watched. Cloning gives another handle of the same states.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<HashMap<GenerationId, Entry>>,
    /// Changes whenever a durable event of any generation may have been written.
    events: watch::Sender<()>,
    owner_changes: OwnerChanges,
}

/// Sends what clients have done with finished generations, each with its `tenant_number`.
#[derive(Debug)]
struct OwnerChanges(broadcast::Sender<(u64, GenerationId, OwnerChange)>);

impl Default for OwnerChanges {
    fn default() -> OwnerChanges {
        OwnerChanges(broadcast::channel(MOST_OWNER_CHANGES).0)
    }
}

/// Maximum number of owner changes that a watcher may be behind. A watcher that is further behind misses the oldest
/// changes.
const MOST_OWNER_CHANGES: usize = 1000;

/// A number that stands for a tenant in messages between processes: the first bytes of the SHA-256 of its id.
pub fn tenant_number(tenant: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(tenant).into();
    digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[derive(Debug)]
struct Entry {
    state: watch::Sender<State>,
    /// The run, if this process runs the generation.
    run: Option<LocalRun>,
    /// Number of the last known durable event of a generation that another process runs.
    last_event: i64,
}

#[derive(Debug)]
struct LocalRun {
    lease: Lease,
    cancel: Cancel,
    /// Canceled together with the run, for code that waits outside the engine.
    canceled: CancellationToken,
    /// The last report to other processes: progress, and (image, step) of each preview.
    reported: (Option<Progress>, Vec<(u32, u32)>),
}

impl Live {
    /// Subscribes to the state of a generation. The channel closes when the generation has ended.
    pub fn subscribe(&self, id: GenerationId) -> watch::Receiver<State> {
        self.0.entries.lock().entry(id).or_insert_with(Entry::new).state.subscribe()
    }

    /// Drops the entry of a generation that has ended, which closes the channels of its watchers.
    pub fn close(&self, id: GenerationId) {
        self.0.entries.lock().remove(&id);
        self.announce();
    }

    /// Drops the entry of a generation that this process neither runs nor watches.
    pub(super) fn release(&self, id: GenerationId) {
        let mut entries = self.0.entries.lock();
        if entries.get(&id).is_some_and(|entry| entry.run.is_none() && entry.state.receiver_count() == 0) {
            entries.remove(&id);
        }
    }

    /// A channel that changes whenever a durable event of any generation may have been written.
    pub(super) fn all_events(&self) -> watch::Receiver<()> {
        self.0.events.subscribe()
    }

    /// Tells the watchers of a tenant what a client has done with a finished generation. `tenant` is a `tenant_number`.
    pub fn changed_by_owner(&self, change: OwnerChange, id: GenerationId, tenant: u64) {
        // Sending fails only if nobody watches.
        let _ = self.0.owner_changes.0.send((tenant, id, change));
    }

    /// A channel that receives from now on what clients of all tenants do with finished generations.
    pub(super) fn owner_changes(&self) -> broadcast::Receiver<(u64, GenerationId, OwnerChange)> {
        self.0.owner_changes.0.subscribe()
    }

    /// Tells the watchers of all generations that a durable event may have been written.
    pub fn announce(&self) {
        self.0.events.send_modify(|()| {});
    }

    /// Drops the entry of a generation that this process does not run, for example if a subscriber finds that the
    /// generation has ended.
    pub fn close_unless_running(&self, id: GenerationId) {
        let mut entries = self.0.entries.lock();
        if entries.get(&id).is_some_and(|entry| entry.run.is_none()) {
            entries.remove(&id);
        }
        self.announce();
    }

    /// Registers a run that a worker starts.
    pub fn begin(&self, lease: Lease, cancel: Cancel) {
        let mut entries = self.0.entries.lock();
        let entry = entries.entry(lease.id()).or_insert_with(Entry::new);
        entry.run = Some(LocalRun { lease, cancel, canceled: CancellationToken::new(), reported: (None, Vec::new()) });
        entry.state.send_modify(|state| *state = State { events: state.events + 1, ..State::default() });
        self.announce();
    }

    /// Removes the run of this lease, but keeps the watchers: this process or another one will run the generation
    /// again. A run that this process has begun meanwhile with a newer lease stays.
    pub fn pause(&self, lease: &Lease) {
        self.announce();
        let id = lease.id();
        let mut entries = self.0.entries.lock();
        let Some(entry) = entries.get_mut(&id) else { return };
        if entry.run.as_ref().is_some_and(|run| run.lease.fence() != lease.fence()) {
            return;
        }
        entry.run = None;
        entry.state.send_modify(|state| *state = State { events: state.events + 1, ..State::default() });
        if entry.state.receiver_count() == 0 {
            entries.remove(&id);
        }
    }

    /// Tells watchers that a durable event was written.
    pub fn event(&self, id: GenerationId) {
        self.modify(id, |state| state.events += 1);
        self.announce();
    }

    pub fn progress(&self, id: GenerationId, progress: Progress) {
        self.modify(id, |state| state.progress = Some(progress));
    }

    pub fn preview(&self, id: GenerationId, preview: Preview) {
        self.modify(id, |state| {
            state.previews.retain(|other| other.index != preview.index);
            state.previews.push(preview);
        });
    }

    /// The state of a generation, if it runs or is watched.
    pub fn state(&self, id: GenerationId) -> Option<State> {
        self.0.entries.lock().get(&id).map(|entry| entry.state.borrow().clone())
    }

    /// The finished share, 0 to 1, of each generation that this process runs.
    pub(super) fn done(&self) -> Vec<(GenerationId, f64)> {
        let entries = self.0.entries.lock();
        let runs = entries.iter().filter(|(_, entry)| entry.run.is_some());
        runs.filter_map(|(id, entry)| Some((*id, f64::from(entry.state.borrow().progress?.percent) / 100.0))).collect()
    }

    /// Cancels the run before its next step, if this process runs the generation.
    pub fn cancel(&self, id: GenerationId, reason: Reason) {
        if let Some(entry) = self.0.entries.lock().get(&id) {
            entry.cancel(reason);
        }
    }

    /// Cancels every run of this process.
    pub fn cancel_all(&self, reason: Reason) {
        self.0.entries.lock().values().for_each(|entry| entry.cancel(reason));
    }

    /// Returns when the run of the generation is canceled, or at once if this process does not run it.
    pub async fn until_canceled(&self, id: GenerationId) {
        let canceled =
            self.0.entries.lock().get(&id).and_then(|entry| entry.run.as_ref().map(|run| run.canceled.clone()));
        if let Some(canceled) = canceled {
            canceled.cancelled().await;
        }
    }

    /// What has changed in the runs of this process since the reports that [`Live::reported`] has noted.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.0.entries.lock().values().filter_map(Entry::report).collect()
    }

    /// Remembers that these reports are in the store, where other processes can read them.
    pub(super) fn reported(&self, reports: &[Report]) {
        let mut entries = self.0.entries.lock();
        for report in reports {
            if let Some(entry) = entries.get_mut(&report.lease.id()) {
                entry.reported(report);
            }
        }
    }

    /// The generations that this process watches and does not run. Also drops entries without a run and without
    /// watchers.
    pub(super) fn followed(&self) -> Vec<GenerationId> {
        let mut entries = self.0.entries.lock();
        entries.retain(|_, entry| entry.run.is_some() || entry.state.receiver_count() > 0);
        entries.iter().filter(|(_, entry)| entry.run.is_none()).map(|(id, _)| *id).collect()
    }

    /// Updates the state of a generation from what another process has reported to the store. Returns whether there are
    /// new previews to fetch.
    pub(super) fn apply_snapshot(&self, snapshot: &Snapshot) -> bool {
        let mut entries = self.0.entries.lock();
        let Some(entry) = entries.get_mut(&snapshot.id).filter(|entry| entry.run.is_none()) else { return false };
        if snapshot.is_over {
            entries.remove(&snapshot.id);
            return false;
        }
        let (is_new, progress) = (snapshot.last_event != entry.last_event, snapshot.progress);
        entry.last_event = snapshot.last_event;
        let mut missing = false;
        entry.state.send_if_modified(|state| {
            let known = |at: &(u32, u32)| state.previews.iter().any(|preview| (preview.index, preview.step) == *at);
            missing = !snapshot.previews.iter().all(known);
            let is_changed = is_new || progress != state.progress;
            state.events += u64::from(is_new);
            state.progress = progress;
            is_changed
        });
        missing
    }

    fn modify(&self, id: GenerationId, change: impl FnOnce(&mut State)) {
        if let Some(entry) = self.0.entries.lock().get(&id) {
            entry.state.send_modify(change);
        }
    }
}

impl Entry {
    fn new() -> Entry {
        Entry { state: watch::Sender::new(State::default()), run: None, last_event: 0 }
    }

    fn cancel(&self, reason: Reason) {
        if let Some(run) = &self.run {
            run.cancel.cancel(reason);
            run.canceled.cancel();
        }
    }

    fn report(&self) -> Option<Report> {
        let (run, state) = (self.run.as_ref()?, self.state.borrow());
        let (progress, previews) = &run.reported;
        let at = |preview: &Preview| (preview.index, preview.step);
        let new: Vec<Preview> =
            state.previews.iter().filter(|preview| !previews.contains(&at(preview))).cloned().collect();
        if new.is_empty() && *progress == state.progress {
            return None;
        }
        Some(Report { lease: run.lease.clone(), progress: state.progress, previews: new })
    }

    fn reported(&mut self, report: &Report) {
        let Some(run) = self.run.as_mut().filter(|run| run.lease.fence() == report.lease.fence()) else { return };
        let (progress, previews) = &mut run.reported;
        *progress = report.progress;
        for Preview { index, step, .. } in &report.previews {
            previews.retain(|(of, _)| of != index);
            previews.push((*index, *step));
        }
    }
}
