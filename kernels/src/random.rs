//! Random numbers for tests and measurements. The same seed gives the same numbers, so that failures are reproducible.

use candle_core::{Device, Tensor};

/// A generator of tensors with approximately normal values.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A tensor of normal values with the given mean and a standard deviation of 1.
    pub fn normal(&mut self, shape: &[usize], mean: f32) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| mean + self.value()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has")
    }

    /// An approximately normal value: the sum of twelve uniform values, minus its mean.
    pub(super) fn value(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    /// A uniform value in [0, 1), by SplitMix64 (Steele, Lea and Flood 2014).
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }
}
