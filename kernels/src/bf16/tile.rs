//! The tiles that the units multiply.

use crate::gemm::WIDTH;

/// Lines of a tile of the left matrix, and of a tile of the result.
pub(super) const LINES: usize = 16;
/// Products of an element of the result that one instruction sums.
pub(crate) const STEP: usize = 32;

/// A tile of a right matrix: 16 columns of 32 bfloat16 numbers. Line i holds the numbers 2·i and 2·i + 1 of each
/// column, the first in the lower half of a value.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct RightTile(pub [[u32; WIDTH]; STEP / 2]);
