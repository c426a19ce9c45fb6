//! Rectangles of a matrix that several threads write at the same time.

use std::{marker::PhantomData, ops::Range};

/// Mutable access to a rectangle of a row-major matrix: some lines, and the same columns of each line.
///
/// A block holds a pointer instead of a slice, because the lines of two blocks side by side alternate in memory.
pub(super) struct Block<'a> {
    first: *mut f32,
    stride: usize,
    lines: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a block gives exclusive access to the values of its rectangle, as a mutable slice does.
unsafe impl Send for Block<'_> {}
// SAFETY: a shared block gives access only to its size and, through the unsafe `part`, to parts that do not overlap.
unsafe impl Sync for Block<'_> {}

impl<'a> Block<'a> {
    /// A whole matrix whose lines have `width` values. Values after the last whole line are left out.
    pub fn new(values: &'a mut [f32], width: usize) -> Self {
        let lines = values.len().checked_div(width).unwrap_or(0);
        Self { first: values.as_mut_ptr(), stride: width, lines, columns: width, matrix: PhantomData }
    }

    pub fn lines(&self) -> usize {
        self.lines
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The same block for a shorter time, as when a mutable slice is reborrowed.
    pub fn reborrow(&mut self) -> Block<'_> {
        Block { matrix: PhantomData, ..*self }
    }

    /// A part of the block.
    ///
    /// # Safety
    ///
    /// While the part exists, no overlapping part may exist, and no value may be accessed through the block itself.
    pub unsafe fn part(&self, lines: Range<usize>, columns: Range<usize>) -> Block<'a> {
        assert!(lines.start <= lines.end && lines.end <= self.lines && columns.start <= columns.end);
        assert!(columns.end <= self.columns);
        // SAFETY: the first value of the part lies within the block, or right behind the block if the part is empty.
        let first = unsafe { self.first.add(lines.start * self.stride + columns.start) };
        Block { first, stride: self.stride, lines: lines.len(), columns: columns.len(), matrix: PhantomData }
    }

    /// One line.
    pub fn line(&mut self, line: usize) -> &mut [f32] {
        assert!(line < self.lines);
        // SAFETY: the line lies within the block, which is borrowed mutably as long as the line.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(line * self.stride), self.columns) }
    }

    /// The pointer to the first value of a rectangle within the block, and the distance between its lines in floats.
    pub fn rectangle(&mut self, lines: Range<usize>, columns: Range<usize>) -> (*mut f32, usize) {
        assert!(lines.end <= self.lines && columns.end <= self.columns && !lines.is_empty() && !columns.is_empty());
        // SAFETY: the rectangle is not empty and lies within the block.
        (unsafe { self.first.add(lines.start * self.stride + columns.start) }, self.stride)
    }
}
