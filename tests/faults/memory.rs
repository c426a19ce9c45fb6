//! Samples of the memory of a process over time.

use std::fmt;

/// The samples in MiB, in order of time.
#[derive(Debug, Default)]
pub struct Memory(Vec<f64>);

impl Memory {
    pub fn sample(&mut self, bytes: u64) {
        self.0.push(bytes as f64 / f64::from(1 << 20));
    }

    /// The means of the first and the last third of the samples, in MiB.
    pub fn thirds(&self) -> (f64, f64) {
        let third = (self.0.len() / 3).max(1).min(self.0.len());
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
        (mean(&self.0[..third]), mean(&self.0[self.0.len() - third..]))
    }

    /// Whether the mean of the last third is at most 10 % and 32 MiB above the first. Caches and allocators vary by
    /// that.
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
fn growing_memory_is_not_flat() {
    let of = |samples: &[f64]| Memory(samples.to_vec());
    assert_eq!(of(&[1.0, 3.0, 9.0, 9.0, 5.0, 7.0]).thirds(), (2.0, 6.0));
    assert!(of(&[]).is_flat() && of(&[100.0]).is_flat());
    assert!(of(&[400.0, 420.0, 430.0]).is_flat());
    assert!(!of(&[400.0, 450.0, 500.0]).is_flat());
}
