//! Parts of a layer of the original code.

use std::ops::Range;

/// A module of diffusers that is all or a part of a module of the original code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::weights) struct Slice {
    /// The module's name in diffusers.
    pub module: String,
    /// The rows of the original weight, counted in parts of equal length.
    pub parts: Range<usize>,
    /// The number of parts of the original weight.
    pub of: usize,
    /// Whether the two halves of the rows are in the opposite order.
    pub is_swapped: bool,
}

impl Slice {
    /// The byte range of this slice's rows, and their number, of a tensor with `rows` rows in `bytes`. `None` if the
    /// rows cannot be divided.
    pub fn rows(&self, rows: usize, bytes: &Range<usize>) -> Option<(usize, Range<usize>)> {
        if rows == 0 || !rows.is_multiple_of(self.of) || !bytes.len().is_multiple_of(rows) {
            return None;
        }
        let (part, line) = (rows / self.of, bytes.len() / rows);
        let at = |parts: usize| bytes.start + parts * part * line;
        Some((self.parts.len() * part, at(self.parts.start)..at(self.parts.end)))
    }
}

pub(super) fn slice(module: &str, parts: Range<usize>, of: usize) -> Slice {
    Slice { module: module.to_owned(), parts, of, is_swapped: false }
}

pub(super) fn whole(module: &str) -> Vec<Slice> {
    vec![slice(module, 0..1, 1)]
}

/// The whole module, whose halves have the opposite order in diffusers.
pub(super) fn swapped(module: &str) -> Vec<Slice> {
    vec![Slice { is_swapped: true, ..slice(module, 0..1, 1) }]
}

pub(super) fn thirds(modules: [&str; 3]) -> Vec<Slice> {
    (0..3).map(|i| slice(modules[i], i..i + 1, 3)).collect()
}

pub(super) fn within(block: &str, slices: Vec<Slice>) -> Vec<Slice> {
    slices.into_iter().map(|slice| Slice { module: format!("{block}{}", slice.module), ..slice }).collect()
}
