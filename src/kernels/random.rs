//! Random tensors for tests: the same ones for the same seed, so that a failure can be seen again.

use candle_core::Tensor;

/// Draws normal values, one tensor after the other.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A tensor of normal values with this mean and a deviation of one.
    pub fn normal(&mut self, shape: &[usize], mean: f32) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| mean + self.value()).collect();
        Tensor::from_vec(values, shape, &crate::device::HOST).expect("as many values as the shape has")
    }

    /// The sum of twelve uniform values is close to normal.
    fn value(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    /// Within [0, 1), by SplitMix64 (Steele, Lea and Flood 2014).
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }
}
