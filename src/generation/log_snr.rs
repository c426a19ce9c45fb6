//! Noise levels at even distances of the logarithm of signal to noise.

/// A range of logarithms of the ratio of signal to noise. A run goes from the least ratio to the largest, and then to
/// the sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSnr {
    pub min: f64,
    pub max: f64,
}

impl LogSnr {
    /// The levels σ of `n` steps, in `x = (1 − σ) x0 + σ ε`: the first is 1, the others are evenly spaced in the
    /// logarithm of signal to noise, and the largest logarithm, where a step after the last would begin, is left out
    /// (diffusers' `logsnr_sigma_schedule`).
    pub fn sigmas(self, n: usize) -> Vec<f64> {
        let level = |i: usize| {
            let share = 1.0 - i as f64 / n.max(1) as f64;
            let log_snr = self.max - share * (self.max - self.min);
            1.0 / (1.0 + libm::exp(log_snr))
        };
        (0..n).map(|i| if i == 0 { 1.0 } else { level(i) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_are_those_of_diffusers() {
        let diffusers = [1.0, 0.994_376, 0.984_480, 0.957_912, 0.890_903, 0.745_547, 0.512_497, 0.273_885];
        let made = LogSnr { min: -6.2, max: 2.0 }.sigmas(8);
        assert!(made.iter().zip(diffusers).all(|(made, expected)| (made - expected).abs() < 1e-6), "{made:?}");
    }

    proptest! {
        #[test]
        fn levels_fall_at_even_distances(min in -20.0f64..=0.0, max in 0.0f64..=20.0, n in 1usize..200) {
            let sigmas = LogSnr { min, max }.sigmas(n);
            prop_assert_eq!((sigmas.len(), sigmas[0]), (n, 1.0));
            prop_assert!(sigmas.windows(2).all(|pair| pair[1] <= pair[0]) && sigmas[n - 1] > 0.0);
            let log_snr = |sigma: f64| ((1.0 - sigma) / sigma).ln();
            for (i, sigma) in sigmas.iter().enumerate().skip(1) {
                let expected = min + (max - min) * i as f64 / n as f64;
                prop_assert!((log_snr(*sigma) - expected).abs() < 1e-6, "{}: {} and {}", i, log_snr(*sigma), expected);
            }
        }
    }
}
