//! The clock of network calls, by which another thread sees that a device hangs.

use std::sync::Arc;

use parking_lot::Mutex;

/// Says which network an engine computes at the moment. Cloning gives another handle of the same clock.
#[derive(Clone, Debug, Default)]
pub struct CallClock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Number of layers that have begun.
    begun: u64,
    /// The network whose layer the device computes; `None` between layers.
    network: Option<&'static str>,
}

/// A layer that a device computes. Dropping it ends the layer.
#[derive(Debug)]
pub(super) struct Timed<'a>(&'a CallClock);

impl CallClock {
    /// Begins a layer of this network.
    pub(super) fn time(&self, network: &'static str) -> Timed<'_> {
        let mut state = self.0.lock();
        state.begun += 1;
        state.network = Some(network);
        Timed(self)
    }

    /// The layer that the device computes, as its number and its network; `None` between layers. Two equal answers mean
    /// that the device has computed the same layer all the time in between.
    pub fn now(&self) -> Option<(u64, &'static str)> {
        let state = self.0.lock();
        state.network.map(|network| (state.begun, network))
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.0.0.lock().network = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_seen_while_it_lasts_and_two_are_told_apart() {
        let clock = CallClock::default();
        assert_eq!(clock.now(), None);
        let first = clock.time("unet");
        let seen = clock.now();
        assert_eq!((seen, clock.now()), (Some((1, "unet")), seen));
        drop(first);
        assert_eq!(clock.now(), None);
        let _second = clock.time("unet");
        assert_eq!(clock.now(), Some((2, "unet")));
    }
}
