//! The geometry of a convolution.

use candle_core::Result;

/// The geometry of a convolution: (height, width) of the kernel, stride in pixels, and the number of rows or columns of
/// zeros on each side of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub kernel: (usize, usize),
    pub stride: usize,
    pub top: usize,
    pub bottom: usize,
    pub left: usize,
    pub right: usize,
}

impl Geometry {
    /// A square kernel with `padding` zeros on every side.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: (kernel, kernel), stride, top: padding, bottom: padding, left: padding, right: padding }
    }

    /// A square kernel with `padding` zeros only below and to the right. diffusers pads the input of a `Downsample2D`
    /// in this way if the `padding` of that layer is 0.
    pub fn square_padded_at_the_end(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { top: 0, left: 0, ..Self::square(kernel, stride, padding) }
    }

    pub(super) fn output(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        let (h, w) = (h + self.top + self.bottom, w + self.left + self.right);
        match (h.checked_sub(self.kernel.0), w.checked_sub(self.kernel.1)) {
            (Some(h), Some(w)) => Ok((h / self.stride + 1, w / self.stride + 1)),
            _ => candle_core::bail!("conv2d: a map of {h}×{w} is smaller than the kernel {:?}", self.kernel),
        }
    }

    pub(super) fn suits_winograd(&self) -> bool {
        *self == Self::square(3, 1, 1)
    }

    pub(super) fn is_pointwise(&self) -> bool {
        *self == Self::square(1, 1, 0)
    }

    /// The index of the input pixel under a tap, for the result at (y, x); `None` if the tap falls on padding.
    pub(super) fn seen(&self, (h, w): (usize, usize), (y, x): (usize, usize), tap: usize) -> Option<usize> {
        let (ky, kx) = (tap / self.kernel.1, tap % self.kernel.1);
        let y = (y * self.stride + ky).checked_sub(self.top)?;
        let x = (x * self.stride + kx).checked_sub(self.left)?;
        (y < h && x < w).then_some(y * w + x)
    }
}
