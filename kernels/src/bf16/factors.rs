//! The matrices of a product, as the units read them.

use super::{
    planes::{Left, Right},
    tile::{LINES, RightTile, STEP},
};

/// The matrices of a product.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a> {
    pub left: &'a Left,
    pub offsets: &'a [usize],
    pub right: &'a Right,
}

impl<'a> Factors<'a> {
    /// Where the planes of a line of the left matrix begin. The numbers of a step lie `offsets[step]` bytes later. From
    /// there, [`LINES`] lines are readable that begin [`Left::stride`] bytes apart, 64 bytes of each.
    #[inline(always)]
    pub fn line<const L: usize>(self, line: usize) -> [*const u8; L] {
        std::array::from_fn(|plane| self.left.line(line, plane))
    }

    /// The bytes from a line of the left matrix to the next.
    pub fn stride(self) -> usize {
        self.left.stride()
    }

    /// A panel of the right matrix: the planes of each step.
    #[inline(always)]
    pub fn panel<const R: usize>(self, panel: usize) -> &'a [[RightTile; R]] {
        self.right.panel(panel).as_chunks().0
    }
}

/// The bytes of a line of a tile.
pub(super) const LINE: usize = STEP * size_of::<u16>();
const _: () = assert!(LINE == 64 && LINES == 16);
