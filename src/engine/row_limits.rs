//! How many rows of each kind of batch fit the memory of a device, learned from batches that did not fit.

use std::collections::HashMap;

use super::BatchKey;

/// After this many batches of the limit's size have fitted, the limit is doubled, because memory may have become free.
/// If it has not, one batch fails and the limit is halved again, so at most one of this many batches is computed in
/// vain.
const FITTING: u32 = 64;

/// Maximum number of limits. If a limit for one more key is learned, all others are forgotten.
const LIMITS: usize = 1024;

/// For each key for which a batch did not fit: the maximum number of rows of a batch with this key. Rows with the same
/// key take about the same memory.
#[derive(Debug, Default)]
pub(super) struct RowLimits(HashMap<BatchKey, Limit>);

#[derive(Debug)]
struct Limit {
    rows: usize,
    /// How many batches of at least `rows` rows have fitted since the limit changed.
    fitted: u32,
}

impl RowLimits {
    /// Maximum number of rows of a batch with this key.
    pub fn most(&self, key: &BatchKey) -> usize {
        self.0.get(key).map_or(usize::MAX, |limit| limit.rows)
    }

    /// A batch of `rows` rows did not fit: the next batches have at most half as many rows, rounded up.
    pub fn shrink(&mut self, key: &BatchKey, rows: usize) {
        if self.0.len() >= LIMITS && !self.0.contains_key(key) {
            self.0.clear();
        }
        self.0.insert(key.clone(), Limit { rows: rows.div_ceil(2), fitted: 0 });
    }

    /// A batch of `rows` rows has fitted.
    pub fn fits(&mut self, key: &BatchKey, rows: usize) {
        let Some(limit) = self.0.get_mut(key).filter(|limit| rows >= limit.rows) else { return };
        limit.fitted += 1;
        if limit.fitted >= FITTING {
            *limit = Limit { rows: limit.rows.saturating_mul(2), fitted: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generation::Precision, pipelines::calls::Decode};

    fn key(side: usize) -> BatchKey {
        BatchKey::of(
            "model".into(),
            &Decode { shape: [4, side, side], stage: 0, is_last: true, share: 1.0 },
            Precision::Exact,
        )
    }

    #[test]
    fn a_limit_is_halved_down_to_one_row_and_holds_for_its_own_key() {
        let mut limits = RowLimits::default();
        let (mut rows, mut tried) = (13, Vec::new());
        while rows > 1 {
            limits.shrink(&key(8), rows);
            rows = limits.most(&key(8));
            tried.push(rows);
        }
        assert_eq!(tried, [7, 4, 2, 1]);
        assert_eq!(limits.most(&key(16)), usize::MAX);
    }

    #[test]
    fn a_limit_grows_after_batches_that_reach_it() {
        let mut limits = RowLimits::default();
        limits.shrink(&key(8), 8);
        (0..10 * FITTING).for_each(|_| limits.fits(&key(8), 3));
        assert_eq!(limits.most(&key(8)), 4, "smaller batches say nothing");
        (1..FITTING).for_each(|_| limits.fits(&key(8), 4));
        assert_eq!(limits.most(&key(8)), 4);
        limits.fits(&key(8), 4);
        assert_eq!(limits.most(&key(8)), 8);
    }

    #[test]
    fn the_number_of_limits_is_bounded() {
        let mut limits = RowLimits::default();
        (1..3 * LIMITS).for_each(|side| limits.shrink(&key(side), 4));
        assert!(limits.0.len() <= LIMITS);

        let mut full = RowLimits::default();
        (1..=LIMITS).for_each(|side| full.shrink(&key(side), 4));
        full.shrink(&key(1), 2);
        assert_eq!((full.most(&key(1)), full.most(&key(2))), (1, 2), "a known key replaces only its own limit");
    }
}
