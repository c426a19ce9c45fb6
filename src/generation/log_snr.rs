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
    ///
    /// The levels have PyTorch's roundings to float32: the networks multiply them by frequencies up to 10,000, so that
    /// the last bit of a level changes the third digit of some of their features.
    pub fn sigmas(self, n: usize) -> Vec<f64> {
        let step = -1.0 / n.max(1) as f32;
        // `torch.linspace` counts from both ends, with one rounding for each number.
        let share = |i: usize| match i < n.div_ceil(2) {
            true => (1.0 + f64::from(step) * i as f64) as f32,
            false => (-f64::from(step) * (n - i) as f64) as f32,
        };
        let level = |i: usize| {
            let log_snr = self.max as f32 - share(i) * (self.max - self.min) as f32;
            f64::from(1.0 / (1.0 + libm::exp(f64::from(log_snr)) as f32))
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
        let diffusers =
            [1.0, 0.994_375_6, 0.984_480_2, 0.957_912_27, 0.890_903_2, 0.745_546_6, 0.512_497_37, 0.273_885f32];
        let made = LogSnr { min: -6.2, max: 2.0 }.sigmas(8);
        assert_eq!(made.into_iter().map(|sigma| sigma as f32).collect::<Vec<_>>(), diffusers);
    }

    proptest! {
        #[test]
        fn levels_fall_at_even_distances(min in -20.0f64..=0.0, max in 0.0f64..=20.0, n in 1usize..200) {
            let sigmas = LogSnr { min, max }.sigmas(n);
            prop_assert_eq!((sigmas.len(), sigmas[0]), (n, 1.0));
            prop_assert!(sigmas.windows(2).all(|pair| pair[1] <= pair[0]) && sigmas[n - 1] > 0.0);
            for (i, sigma) in sigmas.iter().enumerate().skip(1) {
                let log_snr = min + (max - min) * i as f64 / n as f64;
                let expected = 1.0 / (1.0 + log_snr.exp());
                // Logarithms up to 20 are rounded to float32, three times.
                let bound = 3.0 * 40.0 * 2f64.powi(-24) * expected;
                prop_assert!((sigma - expected).abs() < bound, "{}: {} and {}", i, sigma, expected);
            }
        }
    }
}
