//! What happens right now to generations: the latest progress and previews, never a log of them. Of those that this process
//! runs its worker tells, of those that are only watched here the [`Bus`](super::Bus).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Cancel, Reason},
    generation::GenerationId,
    ledger::{Glance, Lease, Report},
};

pub use crate::generation::{Phase, Preview, Progress};

/// What a watcher can see of a generation at this moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Grows when a durable event was written, so that a watcher knows when to read them.
    pub events: u64,
    pub progress: Option<Progress>,
    /// The latest preview of each image.
    pub previews: Vec<Preview>,
}

/// The hub between worker and watchers. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Mutex<HashMap<GenerationId, Entry>>>);

#[derive(Debug)]
struct Entry {
    state: watch::Sender<State>,
    /// Of a generation that this process runs.
    run: Option<Run>,
    /// The last durable event that was seen of a generation which another process runs.
    last_event: i64,
}

#[derive(Debug)]
struct Run {
    lease: Lease,
    cancel: Cancel,
    /// Cancelled together with the run, for what waits outside of the engine.
    canceled: CancellationToken,
    /// What other processes know of it: progress, and image and step of its previews.
    reported: (Option<Progress>, Vec<(u32, u32)>),
}

impl Live {
    /// What is seen of the generation from now on. The receiver closes when the generation has ended.
    pub fn subscribe(&self, id: GenerationId) -> watch::Receiver<State> {
        self.lock().entry(id).or_insert_with(Entry::new).state.subscribe()
    }

    /// Drops the entry of a generation that is over; its watchers' receivers close.
    pub fn close(&self, id: GenerationId) {
        self.lock().remove(&id);
    }

    /// Drops the entry that a subscription has made for a generation which turned out to be over.
    pub fn close_unless_running(&self, id: GenerationId) {
        let mut entries = self.lock();
        if entries.get(&id).is_some_and(|entry| entry.run.is_none()) {
            entries.remove(&id);
        }
    }

    /// A worker begins the generation.
    pub fn begin(&self, lease: Lease, cancel: Cancel) {
        let mut entries = self.lock();
        let entry = entries.entry(lease.id()).or_insert_with(Entry::new);
        entry.run = Some(Run { lease, cancel, canceled: CancellationToken::new(), reported: (None, Vec::new()) });
        entry.state.send_modify(|state| *state = State { events: state.events + 1, ..State::default() });
    }

    /// The run is over but not the generation: this process or another will run it again, and watchers stay.
    pub fn pause(&self, id: GenerationId) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&id) else { return };
        entry.run = None;
        entry.state.send_modify(|state| *state = State { events: state.events + 1, ..State::default() });
        if entry.state.receiver_count() == 0 {
            entries.remove(&id);
        }
    }

    /// A durable event was written.
    pub fn event(&self, id: GenerationId) {
        self.modify(id, |state| state.events += 1);
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

    /// The state of a generation that runs or is watched.
    pub fn state(&self, id: GenerationId) -> Option<State> {
        self.lock().get(&id).map(|entry| entry.state.borrow().clone())
    }

    /// Tells the run, if this process has one, to end before its next step.
    pub fn cancel(&self, id: GenerationId, reason: Reason) {
        if let Some(entry) = self.lock().get(&id) {
            entry.cancel(reason);
        }
    }

    /// Ends every run of this process early.
    pub fn cancel_all(&self, reason: Reason) {
        self.lock().values().for_each(|entry| entry.cancel(reason));
    }

    /// Returns as soon as the run of the generation is told to end; at once where this process has none.
    pub async fn canceled(&self, id: GenerationId) {
        let canceled = self.lock().get(&id).and_then(|entry| entry.run.as_ref().map(|run| run.canceled.clone()));
        if let Some(canceled) = canceled {
            canceled.cancelled().await;
        }
    }

    /// What is new of the runs of this process since the last call.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.lock().values_mut().filter_map(Entry::report).collect()
    }

    /// The generations that are watched here and run elsewhere, or wait. Those that nobody watches any more are forgotten.
    pub(super) fn followed(&self) -> Vec<GenerationId> {
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.run.is_some() || entry.state.receiver_count() > 0);
        entries.iter().filter(|(_, entry)| entry.run.is_none()).map(|(id, _)| *id).collect()
    }

    /// Takes over what another process tells of a generation; returns whether there are previews to be fetched.
    pub(super) fn seen(&self, glance: &Glance) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&glance.id).filter(|entry| entry.run.is_none()) else { return false };
        if glance.is_over {
            entries.remove(&glance.id);
            return false;
        }
        let (is_new, progress) = (glance.last_event != entry.last_event, glance.progress);
        entry.last_event = glance.last_event;
        let mut missing = false;
        entry.state.send_if_modified(|state| {
            let known = |at: &(u32, u32)| state.previews.iter().any(|preview| (preview.index, preview.step) == *at);
            missing = !glance.previews.iter().all(known);
            let is_changed = is_new || progress != state.progress;
            state.events += u64::from(is_new);
            state.progress = progress;
            is_changed
        });
        missing
    }

    fn modify(&self, id: GenerationId, change: impl FnOnce(&mut State)) {
        if let Some(entry) = self.lock().get(&id) {
            entry.state.send_modify(change);
        }
    }

    /// The map is whole whenever the lock is free, since no code between lock and unlock can panic half way.
    fn lock(&self) -> MutexGuard<'_, HashMap<GenerationId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn report(&mut self) -> Option<Report> {
        let (run, state) = (self.run.as_mut()?, self.state.borrow());
        let (progress, previews) = &mut run.reported;
        let at = |preview: &Preview| (preview.index, preview.step);
        let new: Vec<Preview> =
            state.previews.iter().filter(|preview| !previews.contains(&at(preview))).cloned().collect();
        if new.is_empty() && *progress == state.progress {
            return None;
        }
        *progress = state.progress;
        *previews = state.previews.iter().map(at).collect();
        Some(Report { lease: run.lease.clone(), progress: state.progress, previews: new })
    }
}
