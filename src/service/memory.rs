//! Lets generations compute as long as their memory fits a bound; further generations wait in a queue.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{catalogue::Plan, engine::Settings};

/// How many later generations may start before a waiting one. After that, all later generations wait until the waiting
/// one has started.
const OVERTAKEN: usize = 64;

/// Keeps account of the memory of generations according to their plans. The memory that all generations hold, plus the
/// activations of the engines' calls, stays within a bound. A generation larger than the bound is refused before
/// acceptance; if it was accepted while the bound was larger, it runs alone. Cloning gives another handle of the same
/// memory.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

impl Default for Memory {
    /// Memory without a bound.
    fn default() -> Memory {
        Memory::new(u64::MAX, 1)
    }
}

#[derive(Debug)]
struct Shared {
    bound: u64,
    /// Number of engines, whose calls run at the same time.
    devices: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// (ticket, device index, plan) of each generation that computes.
    computing: Vec<(u64, usize, Plan)>,
    /// The waiting generations in the order of arrival.
    waiting: Vec<WaitingRequest>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct WaitingRequest {
    ticket: u64,
    device: usize,
    plan: Plan,
    /// Number of later generations that have started before this one.
    overtaken: usize,
}

/// The memory of one generation. Dropping it frees the memory.
#[derive(Debug)]
pub struct TakenMemory {
    memory: Memory,
    ticket: u64,
}

impl Memory {
    /// `bound`: bytes for all devices together.
    pub fn new(bound: u64, devices: usize) -> Memory {
        Memory(Arc::new(Shared { bound, devices: devices.max(1), state: Mutex::default(), freed: Notify::new() }))
    }

    /// Waits for memory for a generation on a device.
    pub async fn take(&self, device: usize, plan: Plan) -> TakenMemory {
        // Dropping the future drops `taken`, which removes the generation from the queue.
        let taken = TakenMemory { memory: self.clone(), ticket: self.state().line_up(device, plan) };
        loop {
            let freed = self.0.freed.notified();
            if self.state().enter(taken.ticket, &self.0) {
                // Wakes the other waiting generations, which check again whether they fit.
                self.0.freed.notify_waiters();
                return taken;
            }
            freed.await;
        }
    }

    /// Whether a generation with this plan does not fit at the moment.
    pub fn is_short_of(&self, device: usize, plan: Plan) -> bool {
        !self.state().has_room((device, plan), &self.0)
    }

    /// The work, in units of [`Plan::cost`], that must be done before a new generation with this plan gets its memory;
    /// 0 if the generation fits at once. Running generations count in full, even if parts of them are finished. In a
    /// process without a worker, the result is 0.
    ///
    /// The estimate assumes that running generations share the engines equally until the one with the least work ends;
    /// then waiting generations enter in their order as far as they fit.
    pub fn until_room(&self, plan: Plan) -> f64 {
        let on = |device: usize| {
            let (computing, mut waiting) = {
                let state = self.state();
                (state.computing.clone(), state.waiting.clone())
            };
            waiting.push(WaitingRequest { ticket: u64::MAX, device, plan, overtaken: 0 });
            let mut state = State { computing, waiting, next: 0 };
            let mut done = 0.0;
            loop {
                while let Some(ticket) = state.first_with_room(&self.0) {
                    if ticket == u64::MAX {
                        return done;
                    }
                    state.enter(ticket, &self.0);
                }
                // A generation always fits alone, so if none fits, at least one is computing.
                let least = state.computing.iter().map(|(.., plan)| plan.cost).fold(f64::INFINITY, f64::min);
                done += least * state.computing.len() as f64;
                state.computing.iter_mut().for_each(|(.., plan)| plan.cost -= least);
                state.computing.retain(|(.., plan)| plan.cost > 0.0);
            }
        };
        (0..self.0.devices).map(on).fold(f64::INFINITY, f64::min)
    }

    /// The bytes that running generations take: what they hold, plus the activations of one call of each. Also returns
    /// the bound.
    pub fn taken(&self) -> (u64, u64) {
        let of = |(.., plan): &(u64, usize, Plan)| plan.held.saturating_add(plan.call);
        let taken = self.state().computing.iter().map(of).fold(0, u64::saturating_add);
        (taken, self.0.bound)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

impl State {
    fn line_up(&mut self, device: usize, plan: Plan) -> u64 {
        self.next += 1;
        self.waiting.push(WaitingRequest { ticket: self.next, device, plan, overtaken: 0 });
        self.next
    }

    /// The ticket of the first waiting generation that may start.
    fn first_with_room(&self, of: &Shared) -> Option<u64> {
        let places = 0..self.waiting.len();
        places.into_iter().find(|place| self.may_enter(*place, of)).map(|place| self.waiting[place].ticket)
    }

    fn has_room(&self, new: (usize, Plan), of: &Shared) -> bool {
        let plans = || self.computing.iter().map(|(_, device, plan)| (*device, *plan)).chain([new]);
        let held = plans().fold(0u64, |held, (_, plan)| held.saturating_add(plan.held));
        // The calls of one device run one after the other, so only its largest call counts. The calls of several
        // devices run at the same time, so their memory is added.
        let share = Settings::call_bytes(of.bound / of.devices as u64);
        let calls = (0..of.devices).fold(0u64, |calls, device| {
            let here = plans().filter(|(on, _)| *on == device).map(|(_, plan)| plan.call).max();
            calls.saturating_add(here.unwrap_or(0).max(share))
        });
        self.computing.is_empty() || held.saturating_add(calls) <= of.bound
    }

    /// Whether the waiting generation at this place fits, and no earlier one has been overtaken too often.
    fn may_enter(&self, place: usize, of: &Shared) -> bool {
        let WaitingRequest { device, plan, .. } = self.waiting[place];
        let may_pass = self.waiting[..place].iter().all(|before| before.overtaken < OVERTAKEN);
        may_pass && self.has_room((device, plan), of)
    }

    fn enter(&mut self, ticket: u64, of: &Shared) -> bool {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.ticket == ticket) else { return false };
        if !self.may_enter(place, of) {
            return false;
        }
        self.waiting[..place].iter_mut().for_each(|before| before.overtaken += 1);
        let WaitingRequest { device, plan, .. } = self.waiting.remove(place);
        self.computing.push((ticket, device, plan));
        true
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
        self.computing.retain(|(computing, ..)| *computing != ticket);
    }
}

impl Drop for TakenMemory {
    fn drop(&mut self) {
        self.memory.state().leave(self.ticket);
        self.memory.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn plan(held: u64, call: u64) -> Plan {
        Plan { cost: 1.0, held, call, float32_call: call }
    }

    #[test]
    fn held_memory_is_summed_and_only_the_largest_call_counts() {
        let memory = Memory::new(100, 1);
        let take = |held, call| memory.take(0, plan(held, call)).now_or_never();
        let first = take(20, 40).unwrap();
        let second = take(30, 50).unwrap();
        assert!(memory.is_short_of(0, plan(1, 50)) || take(1, 50).is_none(), "51 are held with a call of 50");
        assert!(take(0, 50).is_some());
        drop(first);
        assert!(take(20, 50).is_some());
        drop(second);
        let larger = take(500, 500).unwrap();
        assert!(take(1, 0).is_none(), "one that is larger than the bound runs alone");
        drop(larger);
        assert!(take(1, 0).is_some());
    }

    #[test]
    fn a_bounded_number_of_small_generations_overtake_a_waiting_one() {
        let memory = Memory::new(100, 1);
        let small = memory.take(0, plan(60, 0)).now_or_never().unwrap();
        let mut large = Box::pin(memory.take(0, plan(70, 0)));
        assert!((&mut large).now_or_never().is_none());
        for _ in 0..OVERTAKEN {
            assert!(memory.take(0, plan(10, 0)).now_or_never().is_some());
        }
        assert!(memory.take(0, plan(10, 0)).now_or_never().is_none(), "all wait for it now");
        drop(small);
        let large = (&mut large).now_or_never().unwrap();
        assert!(memory.take(0, plan(10, 0)).now_or_never().is_some(), "its turn has come");
        drop(large);
    }

    #[test]
    fn a_canceled_wait_does_not_block_later_generations() {
        let memory = Memory::new(100, 1);
        let small = memory.take(0, plan(60, 0)).now_or_never().unwrap();
        assert!(memory.take(0, plan(90, 0)).now_or_never().is_none());
        drop(small);
        assert!(memory.take(0, plan(100, 0)).now_or_never().is_some());
    }

    #[test]
    fn the_calls_of_two_devices_are_under_way_together() {
        let memory = Memory::new(100, 2);
        let take = |device, held, call| memory.take(device, plan(held, call)).now_or_never();
        let _first = take(0, 10, 40).unwrap();
        assert!(take(1, 10, 45).is_none(), "20 are held, with calls of 40 and 45");
        assert!(take(0, 10, 45).is_some(), "the calls of one device take turns");
        assert!(take(1, 10, 40).is_some());
    }

    /// If two generations cannot compute at the same time, one waits for the other, even if slots are free.
    #[test]
    fn the_work_until_there_is_room_is_that_of_all_before() {
        let memory = Memory::new(100, 1);
        let of = |cost, held| Plan { cost, held, call: 0, float32_call: 0 };
        let take = |plan| memory.take(0, plan).now_or_never();
        assert_eq!(memory.until_room(of(1.0, 90)), 0.0);
        let _large = take(of(8.0, 60)).unwrap();
        let _small = take(of(2.0, 5)).unwrap();
        assert_eq!(memory.until_room(of(1.0, 20)), 0.0, "it has room beside them");
        // The small generation ends when both have received 2 units, the large one after 6 more.
        assert_eq!(memory.until_room(of(1.0, 60)), 10.0);
        assert_eq!(memory.until_room(of(1.0, 500)), 10.0, "one that is larger than the bound runs alone");
        let mut waits = Box::pin(memory.take(0, of(5.0, 60)));
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(memory.until_room(of(1.0, 60)), 15.0, "and one of 5 is before it in the line");
        assert_eq!(memory.until_room(of(1.0, 20)), 0.0, "a small one passes those that wait");
        drop(waits);
        assert_eq!(memory.until_room(of(1.0, 60)), 10.0);
        assert_eq!(Memory::default().until_room(of(1.0, u64::MAX)), 0.0, "nobody computes in this process");
    }

    #[test]
    fn a_free_device_has_room() {
        let memory = Memory::new(100, 2);
        let of = |cost, held, call| Plan { cost, held, call, float32_call: call };
        let _first = memory.take(0, of(9.0, 10, 45)).now_or_never().unwrap();
        assert_eq!(memory.until_room(of(1.0, 95, 0)), 9.0, "on neither of them");
        assert_eq!(memory.until_room(of(1.0, 5, 40)), 0.0);
    }
}
