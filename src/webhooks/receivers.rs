//! Counts the messages in flight to each receiver.

use std::collections::HashMap;

use parking_lot::Mutex;

/// The number of messages in flight to each receiver.
#[derive(Debug, Default)]
pub struct Receivers(Mutex<HashMap<String, usize>>);

impl Receivers {
    pub(super) fn enter(&self, receiver: &str) {
        let mut under_way = self.0.lock();
        *under_way.entry(receiver.to_owned()).or_default() += 1;
    }

    pub(super) fn leave(&self, receiver: &str) {
        let mut under_way = self.0.lock();
        if let Some(count) = under_way.get_mut(receiver) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(receiver);
            }
        }
    }

    /// The receivers with at least `share` messages in flight.
    pub(super) fn busy(&self, share: usize) -> Vec<String> {
        let under_way = self.0.lock();
        under_way.iter().filter(|(_, count)| **count >= share).map(|(receiver, _)| receiver.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_busy_while_it_has_its_share() {
        let receivers = Receivers::default();
        receivers.enter("a");
        receivers.enter("a");
        receivers.enter("b");
        assert_eq!(receivers.busy(2), ["a"]);
        receivers.leave("a");
        assert_eq!(receivers.busy(2), Vec::<String>::new());
        receivers.leave("a");
        receivers.leave("b");
        assert_eq!(receivers.busy(1), Vec::<String>::new());
    }
}
