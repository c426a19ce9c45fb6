//! Which models are in memory, which are being read, and who waits for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    entry::{key_of, name_of},
    room::{Held, Plan, plan},
};
use crate::{metrics::Metrics, pipelines::Model};

/// So many later askers may be served before one that waits for room; then they let the models that are in its way come
/// to rest. Otherwise a model in steady use would keep others out for ever.
const OVERTAKINGS: u32 = 32;

/// The state of all models behind one lock, which is never held while anything is read or computed.
#[derive(Debug)]
pub(super) struct Shelf(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Bytes that the models together may take.
    bound: u64,
    metrics: Metrics,
    /// By key and device; one that is not here is cold.
    models: BTreeMap<String, Presence>,
    /// Keys of models that the catalogue no longer lists, which go as soon as nobody uses them.
    retired: BTreeSet<String>,
    /// In the order of their coming.
    waiting: Vec<Waiting>,
    /// Names of models that are to be loaded before the server is ready.
    awaited: BTreeSet<String>,
    clock: u64,
}

/// A model's networks, on their way or in place.
#[derive(Debug)]
enum Presence {
    Loading { bytes: u64 },
    Ready { bytes: u64, used: u64, model: Arc<Model> },
    Failed { reason: String },
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    name: String,
    bytes: u64,
    beside: Option<String>,
    /// How many that came later were served before it.
    overtaken: u32,
    waker: Waker,
}

/// What an asker gets.
pub(super) enum Taken {
    Model(Arc<Model>),
    /// It has to read the model; there is room for it once these are dropped.
    ToRead(Vec<Arc<Model>>),
    /// The read that it waited for has failed.
    Failed(String),
}

/// How a model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Cold,
    Loading,
    Ready,
    Failed(String),
}

impl Shelf {
    pub fn new() -> Shelf {
        Shelf(Mutex::new(State {
            bound: u64::MAX,
            metrics: Metrics::new(),
            models: BTreeMap::new(),
            retired: BTreeSet::new(),
            waiting: Vec::new(),
            awaited: BTreeSet::new(),
            clock: 0,
        }))
    }

    pub fn bound(&self) -> u64 {
        self.lock().bound
    }

    pub fn set_bound(&self, bound: u64) {
        self.lock().bound = bound;
    }

    pub fn set_metrics(&self, metrics: Metrics) {
        self.lock().metrics = metrics;
    }

    /// The server is not ready before this model is.
    pub fn await_model(&self, name: &str) {
        self.lock().awaited.insert(name.to_owned());
    }

    pub fn awaited(&self) -> Vec<String> {
        self.lock().awaited.iter().cloned().collect()
    }

    pub fn standing(&self, name: &str) -> Standing {
        match self.lock().models.get(name) {
            None => Standing::Cold,
            Some(Presence::Loading { .. }) => Standing::Loading,
            Some(Presence::Ready { .. }) => Standing::Ready,
            Some(Presence::Failed { reason }) => Standing::Failed(reason.clone()),
        }
    }

    /// The model, or the turn to read it, as soon as that is possible. Dropping the future gives the place in the row up.
    ///
    /// Who holds the model `beside` already is before all who hold none: one of these may be waiting for that model to go,
    /// and neither would come to an end if the other were before it.
    pub async fn take(&self, name: &str, bytes: u64, beside: Option<&str>) -> Taken {
        let number = self.lock().tick();
        let mut place = Place { shelf: self, name, bytes, beside, number, joined: false };
        std::future::poll_fn(|context| place.poll(context)).await
    }

    /// Whether a model of so many bytes finds room beside all that are in memory.
    pub fn has_room(&self, bytes: u64) -> bool {
        let state = self.lock();
        state.bytes().saturating_add(bytes) <= state.bound
    }

    /// Only the models of these keys stay, on whatever device; the others go as soon as nobody uses them.
    pub fn keep(&self, keys: BTreeSet<Arc<str>>) {
        let mut state = self.lock();
        let of = |key: &String| !keys.contains(key_of(key));
        state.retired = state.models.keys().filter(|key| of(key)).cloned().collect();
        let gone = state.unload_retired();
        drop(state);
        // Outside of the lock, since giving memory back takes a while.
        drop(gone);
        self.wake();
    }

    /// The model was read, or not.
    pub fn put(&self, name: &str, read: Result<Arc<Model>, String>) {
        let mut state = self.lock();
        let bytes = match state.models.get(name) {
            Some(Presence::Loading { bytes }) => *bytes,
            _ => 0,
        };
        let result = if read.is_ok() { "loaded" } else { "failed" };
        state.metrics.model_loads.with_label_values(&[name_of(name), result]).inc();
        let used = state.tick();
        let presence = match read {
            Ok(model) => {
                state.awaited.remove(name_of(name));
                Presence::Ready { bytes, used, model }
            }
            Err(reason) => Presence::Failed { reason },
        };
        state.models.insert(name.to_owned(), presence);
        state.tell();
        drop(state);
        self.wake();
    }

    /// The model is not read after all.
    pub fn give_up(&self, name: &str) {
        let mut state = self.lock();
        if let Some(Presence::Loading { .. }) = state.models.get(name) {
            state.models.remove(name);
        }
        state.tell();
        drop(state);
        self.wake();
    }

    /// Something is no longer in use: whoever waits looks again.
    pub fn wake(&self) {
        let mut state = self.lock();
        let gone = state.unload_retired();
        // Outside of the lock, since what a waker does is its own affair.
        let wakers: Vec<Waker> = state.waiting.iter().map(|waiting| waiting.waker.clone()).collect();
        drop(state);
        drop(gone);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The state is whole whenever the lock is free, since no code between lock and unlock can panic half way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One asker, who is in the row of those that wait once its first look was in vain.
struct Place<'a> {
    shelf: &'a Shelf,
    name: &'a str,
    bytes: u64,
    /// What the asker holds, so that it stays.
    beside: Option<&'a str>,
    number: u64,
    /// Somebody else has read the model meanwhile, and how that ends is its end too.
    joined: bool,
}

impl Place<'_> {
    fn poll(&mut self, context: &Context<'_>) -> Poll<Taken> {
        let mut state = self.shelf.lock();
        match state.models.get(self.name) {
            Some(Presence::Loading { .. }) => self.joined = true,
            Some(Presence::Failed { reason }) if self.joined => return Poll::Ready(Taken::Failed(reason.clone())),
            _ => {}
        }
        if let Some(taken) = state.serve(self) {
            return Poll::Ready(taken);
        }
        let waker = context.waker().clone();
        match state.waiting.iter_mut().find(|waiting| waiting.number == self.number) {
            Some(waiting) => waiting.waker = waker,
            None => {
                let (name, bytes, number) = (self.name.to_owned(), self.bytes, self.number);
                let beside = self.beside.map(str::to_owned);
                state.waiting.push(Waiting { number, name, bytes, beside, overtaken: 0, waker });
            }
        }
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.shelf.lock();
        let before = state.waiting.len();
        state.waiting.retain(|waiting| waiting.number != self.number);
        let left = state.waiting.len() < before;
        drop(state);
        if left {
            // Others may have waited on its account.
            self.shelf.wake();
        }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// What the asker gets now, if anything.
    fn serve(&mut self, place: &Place<'_>) -> Option<Taken> {
        let in_the_way = self.in_whose_way(place);
        if in_the_way.iter().any(|i| self.waiting[*i].overtaken >= OVERTAKINGS) {
            return None;
        }
        let now = self.tick();
        let taken = match self.models.get_mut(place.name) {
            Some(Presence::Loading { .. }) => return None,
            Some(Presence::Ready { model, used, .. }) => {
                *used = now;
                Taken::Model(model.clone())
            }
            Some(Presence::Failed { .. }) | None => Taken::ToRead(self.make_room(place)?),
        };
        in_the_way.iter().for_each(|i| self.waiting[*i].overtaken += 1);
        Some(taken)
    }

    /// Takes out what has to go for the asker's model, and takes its place up.
    fn make_room(&mut self, place: &Place<'_>) -> Option<Vec<Arc<Model>>> {
        let (names, plan) = self.plan(place.bytes, place.beside);
        if !plan.now {
            return None;
        }
        let unloaded = plan.unload.iter().filter_map(|i| self.unload(&names[*i])).collect();
        self.models.insert(place.name.to_owned(), Presence::Loading { bytes: place.bytes });
        self.tell();
        Some(unloaded)
    }

    /// Those who came before the asker and wait for room that it would keep or take from them.
    fn in_whose_way(&self, place: &Place<'_>) -> Vec<usize> {
        let delays = |waiting: &Waiting| {
            let is_before = match (&waiting.beside, place.beside) {
                (Some(_), None) => true,
                (None, Some(_)) => false,
                _ => waiting.number < place.number,
            };
            if !is_before || waiting.name == place.name {
                return false;
            }
            if let Some(Presence::Loading { .. } | Presence::Ready { .. }) = self.models.get(&waiting.name) {
                return false;
            }
            let (names, plan) = self.plan(waiting.bytes, waiting.beside.as_deref());
            let is_in_memory = self.models.get(place.name).is_some_and(|presence| presence.held().is_some());
            !is_in_memory || plan.unload.iter().any(|i| names[*i] == place.name)
        };
        (0..self.waiting.len()).filter(|i| delays(&self.waiting[*i])).collect()
    }

    /// How room is made for so many bytes while one model stays, by indices of these names.
    fn plan(&self, bytes: u64, beside: Option<&str>) -> (Vec<String>, Plan) {
        let stays = beside.and_then(|name| self.models.get(name)?.held()).map_or(0, |held| held.bytes);
        let bytes = bytes.saturating_add(stays);
        let others = self.models.iter().filter(|(name, _)| beside != Some(name.as_str()));
        let in_memory = others.filter_map(|(name, presence)| Some((name.clone(), presence.held()?)));
        let (names, held): (Vec<String>, Vec<Held>) = in_memory.unzip();
        (names, plan(&held, bytes, self.bound))
    }

    fn unload_retired(&mut self) -> Vec<Arc<Model>> {
        if self.retired.is_empty() {
            return Vec::new();
        }
        let is_in_use = |key: &String| self.models.get(key).and_then(Presence::held).is_some_and(|held| held.in_use);
        let (stay, go): (BTreeSet<String>, BTreeSet<String>) = self.retired.iter().cloned().partition(is_in_use);
        self.retired = stay;
        let mut gone = Vec::new();
        for key in go {
            match self.unload(&key) {
                Some(model) => gone.push(model),
                None => drop(self.models.remove(&key)),
            }
        }
        self.tell();
        gone
    }

    fn unload(&mut self, name: &str) -> Option<Arc<Model>> {
        match self.models.remove(name) {
            Some(Presence::Ready { model, .. }) => {
                self.metrics.model_unloads.with_label_values(&[name_of(name)]).inc();
                Some(model)
            }
            _ => None,
        }
    }

    /// Shows what memory is taken, or will be in a moment.
    fn tell(&self) {
        self.metrics.model_bytes.set(i64::try_from(self.bytes()).unwrap_or(i64::MAX));
    }

    fn bytes(&self) -> u64 {
        self.models.values().filter_map(Presence::held).fold(0, |sum, held| sum.saturating_add(held.bytes))
    }
}

impl Presence {
    /// A model in memory is in use while somebody beside the shelf has a handle of it. New handles come from the shelf
    /// alone, or from those that are in use already, so that one without use stays so while the lock is held.
    fn held(&self) -> Option<Held> {
        match self {
            Presence::Loading { bytes } => Some(Held { bytes: *bytes, used: u64::MAX, in_use: true }),
            Presence::Ready { bytes, used, model } => {
                Some(Held { bytes: *bytes, used: *used, in_use: Arc::strong_count(model) > 1 })
            }
            Presence::Failed { .. } => None,
        }
    }
}
