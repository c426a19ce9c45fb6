//! What the runs of a call pay for it, in multiplications.

/// Each slice is charged by itself, at the pace of its moment. The pace changes while a long call waits: a sum that is
/// reckoned anew makes some slices free, and then the call keeps its turn through all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// What the whole call does.
    work: f64,
    charged: f64,
}

impl Account {
    pub fn new(work: f64) -> Account {
        Account { work, charged: 0.0 }
    }

    /// The price of a slice that lasted `seconds`, where a multiplication takes `pace` seconds. The prices of all slices exceed
    /// the call's work where it is slower than expected: time is what others wait for.
    pub fn slice(&mut self, seconds: f64, pace: f64) -> f64 {
        let price = seconds / pace;
        self.charged += price;
        price
    }

    /// What is left to pay when the call has ended, 0 or more.
    pub fn rest(&mut self) -> f64 {
        let rest = (self.work - self.charged).max(0.0);
        self.charged += rest;
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slice_costs_its_time_whatever_the_pace_was_before() {
        let mut account = Account::new(1e10);
        // Each pace is slower than the one before, as where small calls of the same network come between.
        for pace in [1e-9, 1.5e-9, 2e-9, 4e-9] {
            assert_eq!(account.slice(0.1, pace), 0.1 / pace);
        }
    }

    #[test]
    fn a_call_that_is_faster_than_expected_pays_for_its_work_in_the_end() {
        let mut account = Account::new(1e9);
        assert_eq!(account.slice(0.2, 1e-9), 2e8);
        assert_eq!(account.rest(), 8e8);
        assert_eq!(account.rest(), 0.0);
    }

    #[test]
    fn a_call_that_is_slower_goes_on_paying() {
        let mut account = Account::new(1e8);
        let paid: f64 = (0..5).map(|_| account.slice(0.1, 1e-9)).sum();
        assert_eq!((paid, account.rest()), (5e8, 0.0));
    }
}
