//! Watches one generation: all durable events in order, and the latest progress and previews.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use tokio::sync::watch::Receiver;
use tokio_util::task::TaskTracker;

use super::{Live, Preview, Progress, ServiceError, Watched, live::State};
use crate::{
    generation::{Event, GenerationId},
    ledger::{Reads, StoreError},
};

/// See [`Service::watch`](super::Service::watch).
pub(super) fn watch(
    store: Arc<dyn Reads>,
    live: Live,
    tasks: TaskTracker,
    id: GenerationId,
    after: i64,
) -> impl Stream<Item = Result<Watched, ServiceError>> + Send + use<> {
    // The subscription precedes the first read, so that no event is missed between the two.
    let receiver = live.subscribe(id);
    let watcher = Watcher {
        store,
        live,
        tasks,
        id,
        after,
        receiver,
        seen_events: None,
        progress: None,
        previews: Vec::new(),
        due: VecDeque::new(),
        over: false,
    };
    stream::unfold(watcher, |mut watcher| async move { watcher.next().await.map(|seen| (seen, watcher)) })
}

struct Watcher {
    store: Arc<dyn Reads>,
    live: Live,
    tasks: TaskTracker,
    id: GenerationId,
    /// Number of the last durable event that was delivered.
    after: i64,
    receiver: Receiver<State>,
    /// [`State::events`] at the last read; `None` before the first read.
    seen_events: Option<u64>,
    progress: Option<Progress>,
    /// (image, step) of the delivered previews.
    previews: Vec<(u32, u32)>,
    due: VecDeque<Watched>,
    over: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Watched, ServiceError>> {
        loop {
            if let Some(seen) = self.due.pop_front() {
                return Some(Ok(seen));
            }
            if self.over {
                return None;
            }
            let closed = self.seen_events.is_some() && self.receiver.changed().await.is_err();
            if let Err(error) = self.look(closed).await {
                self.over = true;
                return Some(Err(error));
            }
        }
    }

    /// Collects everything new. `closed` means that the store already has the last event.
    async fn look(&mut self, closed: bool) -> Result<(), ServiceError> {
        let state = self.receiver.borrow_and_update().clone();
        let mut terminal = closed;
        if closed || self.seen_events != Some(state.events) {
            let events = self.events().await?;
            // If the generation has ended, a watcher that resumes after the generation's last event must end at once.
            if events.is_empty() && self.seen_events.is_none() {
                terminal |= self.store.get(self.id).await?.is_none_or(|record| record.status.is_terminal());
            }
            self.seen_events = Some(state.events);
            // Only the last event counts, because a generation that an operator has queued again has a terminal event
            // from before.
            terminal |= events.last().is_some_and(|last| last.kind.is_terminal());
            for event in events {
                self.after = event.seq;
                self.due.push_back(Watched::Event(event));
            }
        }
        if terminal {
            self.over = true;
            self.live.close_unless_running(self.id);
            return Ok(());
        }
        if let Some(progress) = state.progress.filter(|progress| Some(*progress) != self.progress) {
            self.progress = Some(progress);
            self.due.push_back(Watched::Progress(progress));
        }
        for preview in state.previews {
            self.tell_preview(preview);
        }
        Ok(())
    }

    /// Reads the new events in a separate task. A watcher whose client is slow is sometimes not polled for a while, and
    /// must not hold a connection to the store during this time. The runtime polls the task even then.
    async fn events(&self) -> Result<Vec<Event>, StoreError> {
        let (store, id, after) = (self.store.clone(), self.id, self.after);
        let read = self.tasks.spawn(async move { store.events(id, after).await });
        read.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
    }

    fn tell_preview(&mut self, preview: Preview) {
        let step = (preview.index, preview.step);
        if !self.previews.contains(&step) {
            self.previews.retain(|(index, _)| *index != preview.index);
            self.previews.push(step);
            self.due.push_back(Watched::Preview(preview));
        }
    }
}
