//! Computes how much work the runs of a batch are charged for, in multiplications.

/// The account of one batch. The price of a slice is the seconds of this slice, divided by the pace at that moment. The
/// sum of earlier slices is not computed again with a newer pace: if multiplications became slower while the batch was
/// paused, the new sum would be smaller than what was charged, the next slices would be free, and the batch would keep
/// its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// Multiplications of the whole batch.
    work: f64,
    /// Multiplications charged so far.
    charged: f64,
}

impl Account {
    pub fn new(work: f64) -> Account {
        Account { work, charged: 0.0 }
    }

    /// The price of a slice that took `seconds` seconds, if a multiplication takes `pace` seconds. A slice is charged
    /// for its time, because other runs wait for that time. So if a batch is slower than expected, the sum of the
    /// prices of its slices exceeds the work of the batch.
    pub fn slice(&mut self, seconds: f64, pace: f64) -> f64 {
        let price = seconds / pace;
        self.charged += price;
        price
    }

    /// What is left to charge when the batch has ended, at least 0.
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
        // Each pace is slower than the one before, as if small batches of the same network had run in between.
        for pace in [1e-9, 1.5e-9, 2e-9, 4e-9] {
            assert_eq!(account.slice(0.1, pace), 0.1 / pace);
        }
    }

    #[test]
    fn a_batch_that_is_faster_than_expected_pays_for_its_work_in_the_end() {
        let mut account = Account::new(1e9);
        assert_eq!(account.slice(0.2, 1e-9), 2e8);
        assert_eq!(account.rest(), 8e8);
        assert_eq!(account.rest(), 0.0);
    }

    #[test]
    fn a_batch_that_is_slower_goes_on_paying() {
        let mut account = Account::new(1e8);
        let paid: f64 = (0..5).map(|_| account.slice(0.1, 1e-9)).sum();
        assert_eq!((paid, account.rest()), (5e8, 0.0));
    }
}
