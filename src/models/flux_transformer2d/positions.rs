//! The positions of text tokens and patches, as rotation angles (Su et al. 2021, arXiv:2104.09864).

use candle_core::{Device, Result, Tensor};

use crate::kernels::{Kernels, rotary::Pairs};

/// The base of the frequencies.
const THETA: f64 = 10_000.0;

/// The cosines and sines of the angles of all tokens, each (1, L + N, d/2) for heads of width d.
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// The angles of L text tokens, and then of the patches of a grid (rows, columns), row by row. A text token has
    /// the position (0, 0, 0), a patch has the position (0, row, column). `axes` lists the number of channels of each
    /// axis. Angles are float64, as in diffusers.
    pub fn new(tokens: usize, [rows, columns]: [usize; 2], axes: &[usize], device: &Device) -> Result<Rotary> {
        let patches = (0..rows).flat_map(|row| (0..columns).map(move |column| [0, row, column]));
        let places = std::iter::repeat_n([0; 3], tokens).chain(patches);
        let angles: Vec<f64> = places.flat_map(|place| axes.iter().zip(place).flat_map(of_axis)).collect();
        let shape = (1, tokens + rows * columns, axes.iter().sum::<usize>() / 2);
        let table = |of: fn(f64) -> f64| {
            Tensor::from_vec(angles.iter().map(|angle| of(*angle) as f32).collect(), shape, device)
        };
        Ok(Rotary { cos: table(libm::cos)?, sin: table(libm::sin)? })
    }

    /// Rotates the channels of each head of x (B, L + N, D).
    pub fn rotated(&self, kernels: Kernels, x: &Tensor) -> Result<Tensor> {
        kernels.rotary(x, &self.cos, &self.sin, Pairs::Neighbors)
    }
}

/// The angles of one axis with this number of channels at a position.
fn of_axis((width, position): (&usize, usize)) -> impl Iterator<Item = f64> {
    let width = *width;
    (0..width / 2).map(move |i| position as f64 / libm::pow(THETA, 2.0 * i as f64 / width as f64))
}
