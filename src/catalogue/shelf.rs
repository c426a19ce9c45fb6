//! The shelf: which models are in memory or being loaded, and the queue of requests for models.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::{
    entry::{device_of, key_of, name_of},
    room::{Held, Plan, plan},
};
use crate::{metrics::Metrics, pipelines::Model};

/// How many later requests may be served before a request that waits for room. After that, the models that occupy the
/// room are no longer handed out. Otherwise a model in constant use would keep others out forever.
const OVERTAKINGS: u32 = 32;

/// The state of all models behind one lock. The lock is never held while a model is loaded or computes.
#[derive(Debug)]
pub(super) struct Shelf(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Maximum bytes of all models together in the memory of the host.
    bound: u64,
    /// The devices with memory of their own by name, each with the maximum bytes of all models in its memory.
    own_bounds: BTreeMap<String, u64>,
    metrics: Metrics,
    /// The models by key; a key contains the device. A model that is missing here is cold: neither loaded nor being
    /// loaded.
    models: BTreeMap<String, Presence>,
    /// Keys of models that the catalogue no longer lists, and keys of models on lost devices. They are unloaded when
    /// they are no longer in use.
    retired: BTreeSet<String>,
    /// The names of lost devices.
    lost: BTreeSet<String>,
    /// The waiting requests in the order of arrival.
    waiting: Vec<WaitingModelRequest>,
    /// Names of models that must be loaded before the server is ready.
    awaited: BTreeSet<String>,
    /// Counts uses and requests, so that they can be ordered by time.
    clock: u64,
}

/// A model that is loaded or being loaded, or whose last load has failed.
#[derive(Debug)]
enum Presence {
    Loading { bytes: u64 },
    Ready { bytes: u64, used: u64, model: Arc<Model> },
    Failed { reason: String },
}

#[derive(Debug)]
/// A waiting request for a model.
struct WaitingModelRequest {
    number: u64,
    name: String,
    bytes: u64,
    beside: Option<String>,
    /// How many later requests were served before this one.
    overtaken: u32,
    waker: Waker,
}

/// The result of a request for a model.
pub(super) enum Acquisition {
    Model(Arc<Model>),
    /// The requester must load the model. There is room for it once these models are dropped.
    ToRead(Vec<Arc<Model>>),
    /// The load that the request waited for has failed.
    Failed(String),
}

/// The state of a model on a device.
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
            own_bounds: BTreeMap::new(),
            metrics: Metrics::new(),
            models: BTreeMap::new(),
            retired: BTreeSet::new(),
            lost: BTreeSet::new(),
            waiting: Vec::new(),
            awaited: BTreeSet::new(),
            clock: 0,
        }))
    }

    /// The bound of models in the memory of the host.
    pub fn bound(&self) -> u64 {
        self.0.lock().bound
    }

    /// The bound of models in the memory of this device.
    pub fn bound_of(&self, device: &str) -> u64 {
        let state = self.0.lock();
        state.own_bounds.get(device).copied().unwrap_or(state.bound)
    }

    pub fn set_bound(&self, bound: u64) {
        self.0.lock().bound = bound;
    }

    /// Gives a device with memory of its own a bound.
    pub fn set_own_bound(&self, device: &str, bound: u64) {
        self.0.lock().own_bounds.insert(device.to_owned(), bound);
    }

    pub fn set_metrics(&self, metrics: Metrics) {
        self.0.lock().metrics = metrics;
    }

    /// The server is not ready before this model is loaded.
    pub fn await_model(&self, name: &str) {
        self.0.lock().awaited.insert(name.to_owned());
    }

    pub fn awaited(&self) -> Vec<String> {
        self.0.lock().awaited.iter().cloned().collect()
    }

    pub fn standing(&self, name: &str) -> Standing {
        match self.0.lock().models.get(name) {
            None => Standing::Cold,
            Some(Presence::Loading { .. }) => Standing::Loading,
            Some(Presence::Ready { .. }) => Standing::Ready,
            Some(Presence::Failed { reason }) => Standing::Failed(reason.clone()),
        }
    }

    /// Waits for the model, or for the turn to load it. Dropping the future leaves the queue.
    ///
    /// A request of a caller that holds the model `beside` goes before the requests of callers that hold no model. A
    /// request of a caller without a model may wait until `beside` is unloaded; if this request went first, both
    /// requests would wait forever.
    pub async fn take(&self, name: &str, bytes: u64, beside: Option<&str>) -> Acquisition {
        let number = self.0.lock().tick();
        let mut request = ModelRequest { shelf: self, name, bytes, beside, number, joined: false };
        std::future::poll_fn(|context| request.poll(context)).await
    }

    /// Whether a model of `bytes` bytes fits the memory of this device without unloading others.
    pub fn has_room(&self, device: &str, bytes: u64) -> bool {
        let state = self.0.lock();
        let memory = state.memory_of(device);
        state.bytes(|other| other == memory).saturating_add(bytes) <= state.bound_of(memory)
    }

    /// Keeps only models with these keys, on all devices. Others are unloaded as soon as they are not in use.
    pub fn keep(&self, keys: BTreeSet<Arc<str>>) {
        let mut state = self.0.lock();
        let is_retired = |key: &&String| !keys.contains(key_of(key)) || state.lost.contains(device_of(key));
        let retired = state.models.keys().filter(is_retired).cloned().collect();
        state.retired = retired;
        drop(state);
        self.wake();
    }

    /// Unloads the models of a lost device as soon as they are not in use.
    pub fn lose(&self, device: &str) {
        let mut state = self.0.lock();
        state.lost.insert(device.to_owned());
        let on_it: Vec<String> = state.models.keys().filter(|key| device_of(key) == device).cloned().collect();
        state.retired.extend(on_it);
        drop(state);
        self.wake();
    }

    /// Forgets that loads have failed.
    pub fn forget_failures(&self) {
        self.0.lock().models.retain(|_, presence| !matches!(presence, Presence::Failed { .. }));
    }

    /// Records the result of loading a model.
    pub fn put(&self, name: &str, read: Result<Arc<Model>, String>) {
        let mut state = self.0.lock();
        let bytes = match state.models.get(name) {
            Some(Presence::Loading { bytes }) => *bytes,
            _ => 0,
        };
        let result = if read.is_ok() { "loaded" } else { "failed" };
        state.metrics.model_loads.with_label_values(&[name_of(name), result]).inc();
        // The series begins at 0, so that its rate counts the first event.
        state.metrics.model_unloads.with_label_values(&[name_of(name)]);
        let used = state.tick();
        let presence = match read {
            Ok(model) => {
                state.awaited.remove(name_of(name));
                Presence::Ready { bytes, used, model }
            }
            Err(reason) => Presence::Failed { reason },
        };
        state.models.insert(name.to_owned(), presence);
        if state.lost.contains(device_of(name)) {
            state.retired.insert(name.to_owned());
        }
        state.tell();
        drop(state);
        self.wake();
    }

    /// Records that the model will not be loaded after all.
    pub fn give_up(&self, name: &str) {
        let mut state = self.0.lock();
        if let Some(Presence::Loading { .. }) = state.models.get(name) {
            state.models.remove(name);
        }
        state.tell();
        drop(state);
        self.wake();
    }

    /// Unloads retired models that are no longer in use, and makes all waiting requests check again whether they can be
    /// served.
    pub fn wake(&self) {
        let mut state = self.0.lock();
        let gone = state.unload_retired();
        // The wakers are called after the lock is released, since they run foreign code.
        let wakers: Vec<Waker> = state.waiting.iter().map(|waiting| waiting.waker.clone()).collect();
        drop(state);
        drop(gone);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One request for a model. It joins the queue of waiting requests if the model is not available at the first poll.
struct ModelRequest<'a> {
    shelf: &'a Shelf,
    name: &'a str,
    bytes: u64,
    /// The model that the caller already holds; it stays in memory.
    beside: Option<&'a str>,
    number: u64,
    /// Whether another request was loading the model at an earlier poll. If that load fails, this request fails, too.
    joined: bool,
}

impl ModelRequest<'_> {
    fn poll(&mut self, context: &Context<'_>) -> Poll<Acquisition> {
        let mut state = self.shelf.0.lock();
        match state.models.get(self.name) {
            Some(Presence::Loading { .. }) => self.joined = true,
            Some(Presence::Failed { reason }) if self.joined => {
                return Poll::Ready(Acquisition::Failed(reason.clone()));
            }
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
                state.waiting.push(WaitingModelRequest { number, name, bytes, beside, overtaken: 0, waker });
            }
        }
        Poll::Pending
    }
}

impl Drop for ModelRequest<'_> {
    fn drop(&mut self) {
        let mut state = self.shelf.0.lock();
        let before = state.waiting.len();
        state.waiting.retain(|waiting| waiting.number != self.number);
        let left = state.waiting.len() < before;
        drop(state);
        if left {
            // Others may have waited because of this request.
            self.shelf.wake();
        }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Tries to serve the request now.
    fn serve(&mut self, request: &ModelRequest<'_>) -> Option<Acquisition> {
        let in_the_way = self.in_whose_way(request);
        if in_the_way.iter().any(|i| self.waiting[*i].overtaken >= OVERTAKINGS) {
            return None;
        }
        let now = self.tick();
        let taken = match self.models.get_mut(request.name) {
            Some(Presence::Loading { .. }) => return None,
            Some(Presence::Ready { model, used, .. }) => {
                *used = now;
                Acquisition::Model(model.clone())
            }
            Some(Presence::Failed { .. }) | None => Acquisition::ToRead(self.make_room(request)?),
        };
        in_the_way.iter().for_each(|i| self.waiting[*i].overtaken += 1);
        Some(taken)
    }

    /// Removes the models that must be unloaded for the requested one, and marks the requested model as being loaded,
    /// which reserves its room. `None`, without a change, if a model in use must be unloaded.
    fn make_room(&mut self, request: &ModelRequest<'_>) -> Option<Vec<Arc<Model>>> {
        let (names, plan) = self.plan(device_of(request.name), request.bytes, request.beside);
        if !plan.now {
            return None;
        }
        let unloaded = plan.unload.iter().filter_map(|i| self.unload(&names[*i])).collect();
        self.models.insert(request.name.to_owned(), Presence::Loading { bytes: request.bytes });
        self.tell();
        Some(unloaded)
    }

    /// The indices of the waiting requests that go before this request and whose room this request would occupy.
    fn in_whose_way(&self, request: &ModelRequest<'_>) -> Vec<usize> {
        let delays = |waiting: &WaitingModelRequest| {
            let is_before = match (&waiting.beside, request.beside) {
                (Some(_), None) => true,
                (None, Some(_)) => false,
                _ => waiting.number < request.number,
            };
            let [memory, other] = [&waiting.name, request.name].map(|name| self.memory_of(device_of(name)));
            if !is_before || waiting.name == request.name || memory != other {
                return false;
            }
            if let Some(Presence::Loading { .. } | Presence::Ready { .. }) = self.models.get(&waiting.name) {
                return false;
            }
            let (names, plan) = self.plan(device_of(&waiting.name), waiting.bytes, waiting.beside.as_deref());
            let is_in_memory = self.models.get(request.name).is_some_and(|presence| presence.held().is_some());
            !is_in_memory || plan.unload.iter().any(|i| names[*i] == request.name)
        };
        (0..self.waiting.len()).filter(|i| delays(&self.waiting[*i])).collect()
    }

    /// The name of the memory that holds this device's models: the device's name if the device has its own memory, or
    /// "" for the memory of the host.
    fn memory_of<'a>(&self, device: &'a str) -> &'a str {
        if self.own_bounds.contains_key(device) { device } else { "" }
    }

    fn bound_of(&self, memory: &str) -> u64 {
        self.own_bounds.get(memory).copied().unwrap_or(self.bound)
    }

    /// Plans how to make room for `bytes` bytes in the memory of this device while the model `beside` stays. Indices in
    /// the plan refer to the returned names.
    fn plan(&self, device: &str, bytes: u64, beside: Option<&str>) -> (Vec<String>, Plan) {
        let memory = self.memory_of(device);
        let stays = beside.and_then(|name| self.models.get(name)?.held()).map_or(0, |held| held.bytes);
        let bytes = bytes.saturating_add(stays);
        let here = self.models.iter().filter(|(name, _)| self.memory_of(device_of(name)) == memory);
        let others = here.filter(|(name, _)| beside != Some(name.as_str()));
        let in_memory = others.filter_map(|(name, presence)| Some((name.clone(), presence.held()?)));
        let (names, held): (Vec<String>, Vec<Held>) = in_memory.unzip();
        (names, plan(&held, bytes, self.bound_of(memory)))
    }

    /// Removes the retired models that are not in use, and returns them so that they are dropped outside of the lock.
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

    /// Updates the metrics of the memory that models take, including those being loaded.
    fn tell(&self) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.model_bytes.set(number(self.bytes(|_| true)));
        for memory in self.own_bounds.keys() {
            let bytes = self.bytes(|other| other == memory);
            self.metrics.device_model_bytes.with_label_values(&[memory]).set(number(bytes));
        }
    }

    /// The bytes of all models in these memories.
    fn bytes(&self, is_meant: impl Fn(&str) -> bool) -> u64 {
        let here = self.models.iter().filter(|(key, _)| is_meant(self.memory_of(device_of(key))));
        here.filter_map(|(_, presence)| presence.held()).fold(0, |sum, held| sum.saturating_add(held.bytes))
    }
}

impl Presence {
    /// The model's memory and use. A loaded model is in use while a handle exists outside of the shelf. New handles are
    /// made only by the shelf or from existing handles, so an unused model stays unused while the lock is held.
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
