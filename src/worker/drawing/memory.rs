//! The memory that generations take while they compute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{catalogue::Plan, engine::Settings};

/// So many that came later may begin before one that waits for room; then all wait for it.
const OVERTAKEN: usize = 64;

/// Room for generations by their plans: what all hold and the activations of the engines' calls fit the bound together. A generation
/// that is larger than the bound runs alone. Cloning gives another handle of the same room.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bound: u64,
    /// How many engines have calls under way at the same time.
    devices: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// With the device of each, by its index.
    computing: Vec<(u64, usize, Plan)>,
    /// In the order of arrival, with how many have overtaken each.
    waiting: Vec<(u64, usize)>,
    next: u64,
}

/// The room of one generation, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    memory: Memory,
    ticket: u64,
}

impl Memory {
    /// `bound` in bytes, for all devices together.
    pub fn new(bound: u64, devices: usize) -> Memory {
        Memory(Arc::new(Shared { bound, devices: devices.max(1), state: Mutex::default(), freed: Notify::new() }))
    }

    /// Waits for room for a generation on a device.
    pub(super) async fn take(&self, device: usize, plan: Plan) -> Taken {
        // Whoever gives up the wait leaves the line as one who has had the room does.
        let taken = Taken { memory: self.clone(), ticket: self.state().line_up() };
        loop {
            let freed = self.0.freed.notified();
            if self.state().enter(taken.ticket, (device, plan), &self.0) {
                // Those who had to let it pass look again.
                self.0.freed.notify_waiters();
                return taken;
            }
            freed.await;
        }
    }

    /// Whether it would have to wait.
    pub(super) fn is_short_of(&self, device: usize, plan: Plan) -> bool {
        !self.state().has_room((device, plan), &self.0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line_up(&mut self) -> u64 {
        self.next += 1;
        self.waiting.push((self.next, 0));
        self.next
    }

    fn has_room(&self, new: (usize, Plan), of: &Shared) -> bool {
        let plans = || self.computing.iter().map(|(_, device, plan)| (*device, *plan)).chain([new]);
        let held = plans().fold(0u64, |held, (_, plan)| held.saturating_add(plan.held));
        // The calls of one device take turns; those of several devices are under way at the same time.
        let share = Settings::call_bytes(of.bound / of.devices as u64);
        let calls = (0..of.devices).fold(0u64, |calls, device| {
            let here = plans().filter(|(on, _)| *on == device).map(|(_, plan)| plan.call).max();
            calls.saturating_add(here.unwrap_or(0).max(share))
        });
        self.computing.is_empty() || held.saturating_add(calls) <= of.bound
    }

    /// Enters if there is room and nobody before it has been overtaken too often.
    fn enter(&mut self, ticket: u64, new: (usize, Plan), of: &Shared) -> bool {
        let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == ticket) else { return false };
        if !self.has_room(new, of) || self.waiting[..place].iter().any(|(_, overtaken)| *overtaken >= OVERTAKEN) {
            return false;
        }
        self.waiting[..place].iter_mut().for_each(|(_, overtaken)| *overtaken += 1);
        self.waiting.remove(place);
        self.computing.push((ticket, new.0, new.1));
        true
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.computing.retain(|(computing, ..)| *computing != ticket);
    }
}

impl Drop for Taken {
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
        Plan { cost: 1.0, held, call }
    }

    #[test]
    fn what_is_held_adds_up_and_the_largest_call_counts_once() {
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
    fn small_ones_pass_one_that_waits_but_not_for_ever() {
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
    fn who_gives_up_the_wait_holds_up_nobody() {
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
}
