//! How a model that was trained by flow matching chooses the noise levels of its steps.

/// The levels of a flow-matching pipeline, where they differ from those that the scheduler alone would choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLevels {
    /// Side in pixels of the square that is one token of a picture. Schedulers with `use_dynamic_shifting` shift the
    /// levels by the number of tokens.
    pub token_side: u32,
    /// Whether n levels are evenly spaced from 1 to 1/n before the shift. Otherwise the scheduler chooses them.
    pub is_linear: bool,
}

impl FlowLevels {
    /// The number of tokens of a picture.
    pub fn tokens(&self, width: u32, height: u32) -> u64 {
        let side = self.token_side.max(1);
        u64::from(width / side) * u64::from(height / side)
    }

    /// n levels from 1 to 1/n.
    pub fn linear(n: usize) -> Vec<f64> {
        let step = if n > 1 { (1.0 / n as f64 - 1.0) / (n - 1) as f64 } else { 0.0 };
        (0..n).map(|i| 1.0 + i as f64 * step).collect()
    }
}
