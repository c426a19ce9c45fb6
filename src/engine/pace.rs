//! The speed of the device, measured from the batches that have ended.

use std::{collections::HashMap, sync::Arc};

use super::batch_key::BatchKey;

/// Seconds per multiplication before the first measurement. This is slower than one core, so the first batches are too
/// short rather than too long.
const AT_FIRST: f64 = 5e-10;

/// The weight of the last batch in the mean; earlier batches have the rest.
const WEIGHT: f64 = 0.2;

/// Seconds per multiplication, for each network of each model: an exponentially weighted mean.
#[derive(Debug, Default)]
pub(super) struct Pace(HashMap<(Arc<str>, &'static str), f64>);

impl Pace {
    /// The expected time of `work` multiplications, in seconds.
    pub fn seconds(&self, key: &BatchKey, work: f64) -> f64 {
        work * self.0.get(&(key.model.clone(), key.network)).unwrap_or(&AT_FIRST)
    }

    /// Updates the mean with a batch that took `seconds` for `work` multiplications.
    pub fn learn(&mut self, key: &BatchKey, work: f64, seconds: f64) {
        let last = seconds / work.max(1.0);
        let pace = self.0.entry((key.model.clone(), key.network)).or_insert(last);
        *pace += WEIGHT * (last - *pace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::Precision,
        pipelines::calls::{DecodeTiny, EncodeText},
    };

    #[test]
    fn the_mean_follows_the_calls_of_its_own_network() {
        let text = BatchKey::of(Arc::from("m"), &EncodeText { clip_skip: 0 }, Precision::Exact);
        let tiny = BatchKey::of(Arc::from("m"), &DecodeTiny { shape: [4, 8, 8] }, Precision::Exact);
        let mut pace = Pace::default();
        assert_eq!(pace.seconds(&text, 1e9), 0.5);
        pace.learn(&text, 1e9, 0.1);
        assert_eq!(pace.seconds(&text, 2e9), 0.2);
        pace.learn(&text, 1e9, 0.2);
        assert!((pace.seconds(&text, 1e9) - 0.12).abs() < 1e-12);
        assert_eq!(pace.seconds(&tiny, 1e9), 0.5);
    }
}
