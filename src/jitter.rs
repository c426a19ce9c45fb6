//! Random numbers that vary delays (jitter), so that callers that failed at the same time do not try again at the same
//! time.

/// A random number between `least` and `most`; the middle of both if the system has no randomness.
pub fn between(least: f64, most: f64) -> f64 {
    let share = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    least + (most - least) * share
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_stay_within_their_bounds_and_differ() {
        let shares: Vec<f64> = (0..100).map(|_| super::between(0.8, 1.2)).collect();
        assert!(shares.iter().all(|share| (0.8..=1.2).contains(share)), "{shares:?}");
        assert!(shares.iter().any(|share| *share < 1.0) && shares.iter().any(|share| *share > 1.0), "{shares:?}");
    }
}
