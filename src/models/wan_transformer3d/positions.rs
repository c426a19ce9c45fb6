//! The positions of the patches of a film, as rotation angles (Su et al. 2021, arXiv:2104.09864).

use candle_core::{Device, Result, Tensor};

use crate::kernels::{Kernels, rotary::Pairs};

/// The base of the frequencies.
const THETA: f64 = 10_000.0;

/// The cosines and sines of the angles of all patches, each (1, N, d/2) for heads of width d.
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// The angles of the patches of a grid (frames, rows, columns), column by column. Angles are float64, as in
    /// diffusers.
    pub fn new([frames, rows, columns]: [usize; 3], head: usize, device: &Device) -> Result<Rotary> {
        let side = 2 * (head / 6);
        let axes = [(frames, head - 2 * side), (rows, side), (columns, side)];
        let table = |of: fn(f64) -> f64| {
            let [t, y, x] = axes.map(|(positions, width)| of_axis(positions, width, of));
            let mut values = Vec::with_capacity(frames * rows * columns * head / 2);
            for t in &t {
                for y in &y {
                    x.iter().for_each(|x| [t, y, x].into_iter().for_each(|axis| values.extend_from_slice(axis)));
                }
            }
            Tensor::from_vec(values, (1, frames * rows * columns, head / 2), device)
        };
        Ok(Rotary { cos: table(libm::cos)?, sin: table(libm::sin)? })
    }

    /// Rotates the channels of each head of x (B, N, D).
    pub fn rotated(&self, kernels: Kernels, x: &Tensor) -> Result<Tensor> {
        kernels.rotary(x, &self.cos, &self.sin, Pairs::Neighbors)
    }
}

/// The cosines or sines (`of`) of the angles of an axis of `width` channels, for each position.
fn of_axis(positions: usize, width: usize, of: fn(f64) -> f64) -> Vec<Vec<f32>> {
    let angle = |position: usize, i: usize| position as f64 / libm::pow(THETA, 2.0 * i as f64 / width as f64);
    (0..positions).map(|position| (0..width / 2).map(|i| of(angle(position, i)) as f32).collect()).collect()
}
