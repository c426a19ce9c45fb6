//! Results that several threads write at the same time.

use std::{marker::PhantomData, ops::Range};

/// A rectangle of a row-major matrix, written by whoever holds it: some lines, some columns of each.
///
/// Two blocks of one matrix may lie side by side, so that their lines alternate in memory; therefore a pointer, not a
/// slice.
pub(super) struct Block<'a> {
    first: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a block is the only way to the values of its rectangle, as a mutable slice is.
unsafe impl Send for Block<'_> {}
// SAFETY: a shared block gives nothing away but its size, and its parts to those who vouch for them (`part`).
unsafe impl Sync for Block<'_> {}

impl<'a> Block<'a> {
    /// All of a matrix whose lines are `width` long; what is left after the last whole line is not part of it.
    pub fn new(values: &'a mut [f32], width: usize) -> Self {
        let rows = values.len().checked_div(width).unwrap_or(0);
        Self { first: values.as_mut_ptr(), stride: width, rows, columns: width, matrix: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The same block, lent out.
    pub fn reborrow(&mut self) -> Block<'_> {
        Block { matrix: PhantomData, ..*self }
    }

    /// A part of the block.
    ///
    /// # Safety
    ///
    /// While the part lives, nobody else may hold a part that overlaps with it, nor use the block itself.
    pub unsafe fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Block<'a> {
        assert!(rows.start <= rows.end && rows.end <= self.rows && columns.start <= columns.end);
        assert!(columns.end <= self.columns);
        // SAFETY: the first value of the part lies within the block, or right behind it where the part is empty.
        let first = unsafe { self.first.add(rows.start * self.stride + columns.start) };
        Block { first, stride: self.stride, rows: rows.len(), columns: columns.len(), matrix: PhantomData }
    }

    /// One line.
    pub fn line(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: the line lies within the block, which is borrowed mutably as long as the line.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.columns) }
    }

    /// Pointer to, and distance of, the lines of a rectangle within the block.
    pub fn rectangle(&mut self, rows: Range<usize>, columns: Range<usize>) -> (*mut f32, usize) {
        assert!(rows.end <= self.rows && columns.end <= self.columns && !rows.is_empty() && !columns.is_empty());
        // SAFETY: the rectangle is not empty and lies within the block.
        (unsafe { self.first.add(rows.start * self.stride + columns.start) }, self.stride)
    }
}
