//! What happens right now to the generations of this process: the latest progress and previews, never a log of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Cancel, Reason},
    generation::GenerationId,
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
    cancel: Option<Cancel>,
    /// Cancelled together with the run, for what waits outside of the engine.
    canceled: CancellationToken,
}

impl Live {
    /// What is seen of the generation from now on. The receiver closes when the generation has ended.
    pub fn subscribe(&self, id: GenerationId) -> watch::Receiver<State> {
        self.lock().entry(id).or_insert_with(Entry::new).state.subscribe()
    }

    /// Drops the entry of a generation that nobody runs; its watchers' receivers close.
    pub fn close(&self, id: GenerationId) {
        self.lock().remove(&id);
    }

    /// Drops the entry that a subscription has made for a generation which turned out to be over.
    pub fn close_unless_running(&self, id: GenerationId) {
        let mut entries = self.lock();
        if entries.get(&id).is_some_and(|entry| entry.cancel.is_none()) {
            entries.remove(&id);
        }
    }

    /// A worker begins the generation.
    pub fn begin(&self, id: GenerationId, cancel: Cancel) {
        let mut entries = self.lock();
        let entry = entries.entry(id).or_insert_with(Entry::new);
        entry.cancel = Some(cancel);
        entry.canceled = CancellationToken::new();
        entry.state.send_modify(|state| *state = State { events: state.events + 1, ..State::default() });
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
        let canceled = self.lock().get(&id).map(|entry| entry.canceled.clone());
        if let Some(canceled) = canceled {
            canceled.cancelled().await;
        }
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
        let state = watch::Sender::new(State::default());
        Entry { state, cancel: None, canceled: CancellationToken::new() }
    }

    fn cancel(&self, reason: Reason) {
        if let Some(cancel) = &self.cancel {
            cancel.cancel(reason);
            self.canceled.cancel();
        }
    }
}
