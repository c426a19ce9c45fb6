//! Which ControlNets are in memory, and which of them generations use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use prometheus::IntGauge;

use super::entry::device_of;

/// How many later requests may be served before a request that waits for room. After that, all later requests wait.
const OVERTAKINGS: u32 = 32;

/// The networks in memory, of type `T`. All networks in one memory (the memory of the host or of a GPU) together take
/// at most a bound. A network that a lease names stays in memory. The other networks stay until their room is needed;
/// then the least recently used network is dropped first. Cloning gives another handle of the same shelf.
pub(super) struct ControlShelf<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    /// Maximum bytes of the networks in one memory.
    bound: u64,
    /// The memories for which another maximum than `bound` holds, with this maximum.
    own_bounds: BTreeMap<String, u64>,
    /// The metric for the bytes of all networks.
    gauge: Option<IntGauge>,
    /// The networks by key. A key contains the memory that holds the network.
    nets: BTreeMap<String, Place<T>>,
    /// The waiting requests in the order of arrival.
    waiting: Vec<WaitingRequest>,
    /// Counts requests and uses.
    clock: u64,
}

/// A network that is in memory, being loaded, or about to be loaded.
struct Place<T> {
    bytes: u64,
    /// Number of leases that name the network.
    users: usize,
    used: u64,
    /// Locked while the network is loaded, so that its weights are read only once.
    net: Arc<Mutex<Option<Arc<T>>>>,
}

struct WaitingRequest {
    number: u64,
    /// The memory that the networks are to be in.
    memory: String,
    /// How many later requests were served before this one.
    overtaken: u32,
    waker: Waker,
}

/// A network that a generation needs: its key with the memory that holds it, and its bytes there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub key: String,
    pub bytes: u64,
}

/// Room for the networks of one generation, which stay in memory until the lease is dropped.
pub(super) struct Lease<T> {
    shelf: ControlShelf<T>,
    wanted: BTreeSet<Wanted>,
}

impl<T> Clone for ControlShelf<T> {
    fn clone(&self) -> Self {
        ControlShelf(self.0.clone())
    }
}

impl<T> Default for ControlShelf<T> {
    /// A shelf without a bound.
    fn default() -> Self {
        let (own_bounds, nets, waiting) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        ControlShelf(Arc::new(Mutex::new(State { bound: u64::MAX, own_bounds, gauge: None, nets, waiting, clock: 0 })))
    }
}

impl<T> ControlShelf<T> {
    /// Maximum bytes of the networks in a memory.
    pub fn bound(&self, memory: &str) -> u64 {
        self.0.lock().bound_of(memory)
    }

    /// Sets another maximum for a memory.
    pub fn set_own_bound(&self, memory: &str, bound: u64) {
        self.0.lock().own_bounds.insert(memory.to_owned(), bound);
    }

    pub fn set_bound(&self, bound: u64) {
        self.0.lock().bound = bound;
    }

    pub fn set_gauge(&self, gauge: IntGauge) {
        self.0.lock().gauge = Some(gauge);
    }

    /// Waits for room for all these networks together. All of them must be for the same memory. Holders of a lease wait
    /// for no other lease, so no two generations wait for each other. If the networks exceed the bound, they get room
    /// when no other network is in use. Dropping the future leaves the queue.
    pub async fn take(&self, wanted: BTreeSet<Wanted>) -> Lease<T> {
        // A generation without ControlNets neither waits nor overtakes anybody.
        if wanted.is_empty() {
            return Lease { shelf: self.clone(), wanted };
        }
        let number = self.0.lock().tick();
        let mut request = Request { shelf: self, wanted: &wanted, number };
        std::future::poll_fn(|context| request.poll(context)).await;
        drop(request);
        Lease { shelf: self.clone(), wanted }
    }

    /// Drops the networks that no lease names and for whose keys `is_listed` returns false.
    pub fn keep(&self, is_listed: impl Fn(&str) -> bool) {
        let mut state = self.0.lock();
        let gone: Vec<_> = state.nets.extract_if(.., |key, place| place.users == 0 && !is_listed(key)).collect();
        state.tell();
        drop(state);
        drop(gone);
    }

    fn wake(&self) {
        // Outside of the lock, since wakers run foreign code.
        let wakers: Vec<Waker> = self.0.lock().waiting.iter().map(|waiting| waiting.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T> Lease<T> {
    /// The network with this key; `read` loads it if it is not in memory. Blocks during the load. `None` if the lease
    /// does not name the network, because the network's files have changed since the lease was taken. Then there is no
    /// room for the network.
    ///
    /// # Errors
    /// The error of `read`. A later call tries again.
    pub fn get<E>(&self, key: &str, read: impl FnOnce() -> Result<T, E>) -> Option<Result<Arc<T>, E>> {
        let is_named = self.wanted.iter().any(|wanted| wanted.key == key);
        let place = self.shelf.0.lock().nets.get(key).filter(|_| is_named)?.net.clone();
        let mut net = place.lock();
        Some(match &*net {
            Some(net) => Ok(net.clone()),
            None => read().map(|read| net.insert(Arc::new(read)).clone()),
        })
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        let mut state = self.shelf.0.lock();
        let now = state.tick();
        for wanted in &self.wanted {
            if let Some(place) = state.nets.get_mut(&wanted.key) {
                (place.users, place.used) = (place.users.saturating_sub(1), now);
            }
        }
        drop(state);
        self.shelf.wake();
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.wanted).finish()
    }
}

impl<T> fmt::Debug for ControlShelf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlShelf").field("bound", &self.0.lock().bound).finish_non_exhaustive()
    }
}

/// One request for room. The request joins the queue when it is polled and there is no room.
struct Request<'a, T> {
    shelf: &'a ControlShelf<T>,
    wanted: &'a BTreeSet<Wanted>,
    number: u64,
}

impl<T> Request<'_, T> {
    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.shelf.0.lock();
        if let Some(gone) = state.serve(self.number, self.wanted) {
            drop(state);
            // Frees the memory of the dropped networks before others are loaded.
            drop(gone);
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        match state.waiting.iter_mut().find(|waiting| waiting.number == self.number) {
            Some(waiting) => waiting.waker = waker,
            None => {
                let memory = memory_of(self.wanted).to_owned();
                state.waiting.push(WaitingRequest { number: self.number, memory, overtaken: 0, waker });
            }
        }
        Poll::Pending
    }
}

impl<T> Drop for Request<'_, T> {
    fn drop(&mut self) {
        let mut state = self.shelf.0.lock();
        let before = state.waiting.len();
        state.waiting.retain(|waiting| waiting.number != self.number);
        let left = state.waiting.len() < before;
        drop(state);
        if left {
            self.shelf.wake();
        }
    }
}

/// The memory of networks that are in one memory.
fn memory_of(wanted: &BTreeSet<Wanted>) -> &str {
    wanted.first().map_or("", |wanted| device_of(&wanted.key))
}

impl<T> State<T> {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn bound_of(&self, memory: &str) -> u64 {
        self.own_bounds.get(memory).copied().unwrap_or(self.bound)
    }

    /// Gives the networks room if there is enough, and returns the networks that are dropped for it.
    fn serve(&mut self, number: u64, wanted: &BTreeSet<Wanted>) -> Option<Vec<Place<T>>> {
        let memory = memory_of(wanted);
        let bound = self.bound_of(memory);
        let before = |waiting: &&mut WaitingRequest| waiting.number < number && waiting.memory == memory;
        if self.waiting.iter_mut().filter(before).any(|waiting| waiting.overtaken >= OVERTAKINGS) {
            return None;
        }
        let is_wanted = |key: &str| wanted.iter().any(|wanted| wanted.key == key);
        let here = |(key, _): &(&String, &Place<T>)| device_of(key) == memory;
        let needed: u64 = wanted.iter().map(|wanted| wanted.bytes).fold(0, u64::saturating_add);
        let others = self.nets.iter().filter(here).filter(|(key, place)| place.users > 0 && !is_wanted(key));
        let others = others.map(|(_, place)| place.bytes).fold(0, u64::saturating_add);
        if others > 0 && others.saturating_add(needed) > bound {
            return None;
        }
        let mut idle: Vec<(u64, String, u64)> = self
            .nets
            .iter()
            .filter(here)
            .filter(|(key, place)| place.users == 0 && !is_wanted(key))
            .map(|(key, place)| (place.used, key.clone(), place.bytes))
            .collect();
        idle.sort();
        let mut all = idle.iter().map(|(.., bytes)| *bytes).fold(others.saturating_add(needed), u64::saturating_add);
        let mut gone = Vec::new();
        for (_, key, bytes) in idle {
            if all <= bound {
                break;
            }
            all = all.saturating_sub(bytes);
            gone.extend(self.nets.remove(&key));
        }
        let used = self.tick();
        for Wanted { key, bytes } in wanted {
            let place = self.nets.entry(key.clone()).or_insert_with(|| Place {
                bytes: *bytes,
                users: 0,
                used,
                net: Arc::default(),
            });
            place.users += 1;
        }
        self.waiting.iter_mut().filter(before).for_each(|waiting| waiting.overtaken += 1);
        self.tell();
        Some(gone)
    }

    fn tell(&self) {
        let bytes = self.nets.values().map(|place| place.bytes).fold(0, u64::saturating_add);
        if let Some(gauge) = &self.gauge {
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::{super::entry::on_device, *};

    fn wanted(names: &[(&str, u64)]) -> BTreeSet<Wanted> {
        names.iter().map(|(name, bytes)| Wanted { key: on_device(name, "cpu"), bytes: *bytes }).collect()
    }

    fn shelf(bound: u64) -> ControlShelf<String> {
        let shelf = ControlShelf::default();
        shelf.set_bound(bound);
        shelf
    }

    fn take(shelf: &ControlShelf<String>, names: &[(&str, u64)]) -> Option<Lease<String>> {
        shelf.take(wanted(names)).now_or_never()
    }

    /// Whether the network had to be read.
    fn reads(lease: &Lease<String>, name: &str) -> bool {
        let mut fresh = false;
        let net = lease.get(&on_device(name, "cpu"), || {
            fresh = true;
            Ok::<_, ()>(name.to_owned())
        });
        assert_eq!(net.unwrap().as_deref().map(String::as_str), Ok(name));
        fresh
    }

    #[test]
    fn networks_stay_until_their_room_is_needed() {
        let shelf = shelf(10);
        let first = take(&shelf, &[("a", 4), ("b", 4)]).unwrap();
        assert!(reads(&first, "a") && reads(&first, "b") && !reads(&first, "a"));
        assert!(take(&shelf, &[("c", 4)]).is_none(), "8 of 10 are in use");
        let shared = take(&shelf, &[("a", 4), ("d", 2)]).unwrap();
        assert!(!reads(&shared, "a"));
        drop((first, shared));
        assert!(!reads(&take(&shelf, &[("b", 4)]).unwrap(), "b"), "it is still there");
        let large = take(&shelf, &[("c", 6)]).unwrap();
        assert!(!reads(&take(&shelf, &[("b", 4)]).unwrap(), "b"), "the others were used less recently");
        drop(large);
        assert!(reads(&take(&shelf, &[("a", 4)]).unwrap(), "a"));
        let alone = take(&shelf, &[("e", 99)]).unwrap();
        assert!(take(&shelf, &[("f", 1)]).is_none(), "a larger one has room alone");
        drop(alone);
        assert_eq!(shelf.0.lock().nets.len(), 1);
        shelf.keep(|_| false);
        assert_eq!(shelf.0.lock().nets.len(), 0);
    }

    #[test]
    fn a_failed_load_is_tried_again() {
        let shelf = shelf(10);
        let lease = take(&shelf, &[("a", 4)]).unwrap();
        assert_eq!(lease.get(&on_device("a", "cpu"), || Err::<String, _>("broken")), Some(Err("broken")));
        assert!(reads(&lease, "a"));
    }

    /// A reload gives a network with new files another key. The new files have no room in the old lease.
    #[test]
    fn a_lease_has_room_only_for_the_networks_that_it_names() {
        let shelf = shelf(10);
        let (old, _other) = (take(&shelf, &[("a", 4)]).unwrap(), take(&shelf, &[("b", 4)]).unwrap());
        for other in ["b", "a, changed"] {
            let net = old.get(&on_device(other, "cpu"), || -> Result<String, ()> { panic!("it is not read") });
            assert!(net.is_none(), "{other}");
        }
    }

    #[test]
    fn a_bounded_number_of_small_requests_overtake_a_waiting_one() {
        let shelf = shelf(10);
        let held = take(&shelf, &[("a", 6)]).unwrap();
        let mut large = Box::pin(shelf.take(wanted(&[("b", 8)])));
        assert!((&mut large).now_or_never().is_none());
        for _ in 0..OVERTAKINGS {
            assert!(take(&shelf, &[("c", 2)]).is_some());
        }
        assert!(take(&shelf, &[("c", 2)]).is_none());
        // The queue is only for generations that need room in the same memory.
        assert!(take(&shelf, &[]).is_some());
        let elsewhere = BTreeSet::from([Wanted { key: on_device("b", "cuda:0"), bytes: 2 }]);
        assert!(shelf.take(elsewhere).now_or_never().is_some());
        drop(held);
        assert!((&mut large).now_or_never().is_some());
        assert!(take(&shelf, &[("c", 2)]).is_some());
    }

    #[test]
    fn each_memory_has_the_whole_bound() {
        let shelf = shelf(10);
        let on = |memory| BTreeSet::from([Wanted { key: on_device("a", memory), bytes: 8 }]);
        let first = shelf.take(on("cuda:0")).now_or_never().unwrap();
        assert!(shelf.take(on("cuda:1")).now_or_never().is_some());
        shelf.set_own_bound("cuda:0", 20);
        let other = |memory| BTreeSet::from([Wanted { key: on_device("b", memory), bytes: 8 }]);
        assert!(shelf.take(other("cuda:0")).now_or_never().is_some(), "or one of its own");
        assert_eq!((shelf.bound("cuda:0"), shelf.bound("cuda:1")), (20, 10));
        drop(first);
    }

    proptest! {
        /// Whatever is taken and given back, the networks in memory fit the bound, unless they serve a single request
        /// that does not fit by itself. Every request is served once all leases are given back.
        #[test]
        fn the_bound_holds(requests in prop::collection::vec((prop::collection::vec(0..6usize, 1..4), any::<bool>()), 1..60)) {
            const NAMES: [(&str, u64); 6] = [("a", 1), ("b", 2), ("c", 3), ("d", 5), ("e", 8), ("f", 13)];
            let shelf = shelf(10);
            let mut leases: Vec<Lease<String>> = Vec::new();
            for (names, gives_back) in requests {
                let names: Vec<(&str, u64)> = names.into_iter().map(|at| NAMES[at]).collect();
                leases.extend(take(&shelf, &names));
                let state = shelf.0.lock();
                let bytes: u64 = state.nets.values().map(|place| place.bytes).sum();
                let in_use: u64 = state.nets.values().filter(|place| place.users > 0).map(|place| place.bytes).sum();
                prop_assert!(bytes <= 10 || bytes == in_use, "{bytes} bytes, {in_use} in use");
                let takes = |lease: &Lease<String>| lease.wanted.iter().map(|wanted| wanted.bytes).sum::<u64>();
                prop_assert!(in_use <= 10 || leases.iter().any(|lease| takes(lease) > 10));
                drop(state);
                if gives_back && !leases.is_empty() {
                    leases.remove(0);
                }
            }
            leases.clear();
            prop_assert!(take(&shelf, &[("f", 13)]).is_some());
        }
    }
}
