//! How much memory a process has over time.

use std::fmt;

/// MiB, one after another.
#[derive(Debug, Default)]
pub struct Memory(Vec<f64>);

impl Memory {
    pub fn sample(&mut self, bytes: u64) {
        self.0.push(bytes as f64 / f64::from(1 << 20));
    }

    /// The means of the first and of the last third.
    pub fn thirds(&self) -> (f64, f64) {
        let third = (self.0.len() / 3).max(1).min(self.0.len());
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
        (mean(&self.0[..third]), mean(&self.0[self.0.len() - third..]))
    }

    /// Whether the last third has hardly more than the first: a tenth and 32 MiB, by which caches and allocators breathe.
    pub fn is_flat(&self) -> bool {
        let (first, last) = self.thirds();
        last <= 1.1 * first + 32.0
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.thirds();
        let most = self.0.iter().copied().fold(0.0, f64::max);
        write!(
            f,
            "resident memory {first:.0} MiB in the first third, {last:.0} MiB in the last, {most:.0} MiB at most of {} samples",
            self.0.len()
        )
    }
}

#[test]
fn what_grows_is_not_flat() {
    let of = |samples: &[f64]| Memory(samples.to_vec());
    assert_eq!(of(&[1.0, 3.0, 9.0, 9.0, 5.0, 7.0]).thirds(), (2.0, 6.0));
    assert!(of(&[]).is_flat() && of(&[100.0]).is_flat());
    assert!(of(&[400.0, 420.0, 430.0]).is_flat());
    assert!(!of(&[400.0, 450.0, 500.0]).is_flat());
}
