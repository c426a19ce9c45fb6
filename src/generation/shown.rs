//! Numbers in messages.

use std::fmt;

/// A number that is written with at most 25 characters: `0.5`, `1000`, and `1e300` instead of 301 digits.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(number) = *self;
        match number == 0.0 || (1e-6..1e15).contains(&number.abs()) || !number.is_finite() {
            true => write!(f, "{number}"),
            false => write!(f, "{number:e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_shown_in_few_characters() {
        for (number, text) in [
            (0.0, "0"),
            (-4.0, "-4"),
            (0.000_001, "0.000001"),
            (1e300, "1e300"),
            (-2.5e-300, "-2.5e-300"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(Shown(number).to_string(), text);
        }
        let longest = -3.200_958_219_333_160_6e-6;
        assert_eq!(Shown(longest).to_string().len(), 25);
        assert!([f64::MAX, f64::MIN_POSITIVE, -1.0 / 3.0, 1e15 - 0.3].iter().all(|n| Shown(*n).to_string().len() < 25));
    }
}
