//! Patches: the tokens of a diffusion transformer, each a square of latent pixels.

use candle_core::{Device, Result, Tensor};

/// The position embeddings of a grid of patches (diffusers' `get_2d_sincos_pos_embed`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    /// D: width of a token.
    pub width: usize,
    /// Patches per side of the pictures of the training. Other grids are stretched to this one.
    pub base: usize,
    /// The number by which positions are divided.
    pub scale: f64,
}

impl Positions {
    /// The sines and cosines of each patch's column, then of its row: (rows · columns, D).
    pub fn of(self, [rows, columns]: [usize; 2], device: &Device) -> Result<Tensor> {
        let quarter = self.width / 4;
        let axis = |position: f64| {
            let angle = move |i: usize| position / libm::pow(10_000.0, i as f64 / quarter as f64);
            let sines = (0..quarter).map(move |i| libm::sin(angle(i)) as f32);
            sines.chain((0..quarter).map(move |i| libm::cos(angle(i)) as f32))
        };
        // The positions are rounded to float32, as in diffusers.
        let position = |i: usize, patches: usize| {
            f64::from(i as f32 / (patches as f64 / self.base as f64) as f32 / self.scale as f32)
        };
        let patches = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let values = patches.flat_map(|(row, column)| axis(position(column, columns)).chain(axis(position(row, rows))));
        Tensor::from_vec(values.collect::<Vec<f32>>(), (rows * columns, self.width), device)
    }
}

/// The maps of tokens: x (B, rows · columns, p·p·C) → (B, C, rows · p, columns · p), for patches of p × p pixels.
pub(super) fn unpatchified(x: &Tensor, [rows, columns]: [usize; 2], patch: usize) -> Result<Tensor> {
    let (b, _, width) = x.dims3()?;
    let channels = width / (patch * patch);
    let x = x.reshape(&[b, rows, columns, patch, patch, channels][..])?.permute([0, 5, 1, 3, 2, 4])?;
    x.contiguous()?.reshape((b, channels, rows * patch, columns * patch))
}
