//! The functions of the discrete cosine transform of blocks, and rounding.

use super::layout::BLOCK;

/// The constant function of the orthonormal discrete cosine transform of eight numbers.
pub(super) const CONSTANT: f32 = 0.353_553_39;
/// The function with the lowest frequency: `cos((2x + 1) π / 16) / 2` for x from 0 to 7.
pub(super) const COSINE: [f32; BLOCK] =
    [0.490_392_64, 0.415_734_8, 0.277_785_12, 0.097_545_16, -0.097_545_16, -0.277_785_12, -0.415_734_8, -0.490_392_64];

/// The nearest integer to a number between −2²² and 2²². Adding 1.5 · 2²³ leaves no bits for a fraction.
#[inline(always)]
pub(super) fn nearest(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}
