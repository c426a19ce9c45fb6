//! A random number generator that gives the same numbers for a seed on every machine, so that failures can be repeated.

#![allow(dead_code, reason = "each test target uses its part")]

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator for draw `number` of a seed. Draws with different numbers are independent.
    pub fn of(seed: u64, number: u64) -> Random {
        let mut random = Random(seed);
        random.0 ^= Random(number).next().rotate_left(32);
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A random whole number in `from..=to`.
    pub fn whole(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    /// A random number in `from..=to`, rounded to hundredths.
    pub fn number(&mut self, from: f64, to: f64) -> f64 {
        let share = self.whole(0, 1 << 20) as f64 / f64::from(1 << 20);
        ((from + share * (to - from)) * 100.0).round() / 100.0
    }

    /// True with a probability of `percent` %.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// A random element of a list that must not be empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.whole(0, of.len() as u64 - 1) as usize]
    }
}
