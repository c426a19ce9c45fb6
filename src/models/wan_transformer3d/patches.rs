//! The patches of films: 1 × 2 × 2 latent pixels each.

use candle_core::{Result, Tensor};

use crate::{kernels::matrix::Matrix, weights::Weights};

/// The side of a patch in latent pixels. A patch has one latent frame.
pub const PATCH: usize = 2;

/// diffusers' `patch_embedding`: a convolution of patches that do not overlap.
#[derive(Debug)]
pub(super) struct PatchEmbedding {
    matrix: Matrix,
}

impl PatchEmbedding {
    pub fn new(weights: &Weights, channels: usize, width: usize) -> Self {
        let weight = weights.tensor("weight", &[width, channels, 1, PATCH, PATCH]);
        let bias = weights.tensor("bias", &[width]);
        let matrix = || {
            let plain = weight.reshape((width, channels * PATCH * PATCH))?.t()?.contiguous()?;
            Matrix::new(&plain, Some(&bias), weights.kernels())
        };
        Self { matrix: matrix().expect("the weights have the requested shapes") }
    }

    /// x (B, C, F, h, w) → (B, F · h/2 · w/2, D)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, f, h, w) = x.dims5()?;
        let (rows, columns) = (h / PATCH, w / PATCH);
        let x = x.reshape(&[b, c, f, rows, PATCH, columns, PATCH][..])?.permute([0, 2, 3, 5, 1, 4, 6])?;
        self.matrix.times(&x.contiguous()?.reshape((b, f * rows * columns, c * PATCH * PATCH))?)
    }
}

/// x (B, F · rows · columns, 2 · 2 · C), in the order row and column within the patch, channel → (B, C, F, 2 · rows,
/// 2 · columns)
pub(super) fn joined(x: &Tensor, [f, rows, columns]: [usize; 3]) -> Result<Tensor> {
    let (b, _, width) = x.dims3()?;
    let c = width / (PATCH * PATCH);
    let x = x.reshape(&[b, f, rows, columns, PATCH, PATCH, c][..])?.permute([0, 6, 1, 2, 4, 3, 5])?;
    x.contiguous()?.reshape((b, c, f, rows * PATCH, columns * PATCH))
}
