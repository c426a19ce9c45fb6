//! Reads the sizes of a network from the names and shapes of its tensors.

use std::collections::HashMap;

use crate::weights::tensors::Entry;

/// The tensors of a network by diffusers name.
pub(super) struct Outline<'a>(pub &'a HashMap<String, Entry>);

impl Outline<'_> {
    /// The length of an axis of a tensor.
    ///
    /// # Errors
    /// There is no such tensor or axis.
    pub fn axis(&self, name: &str, axis: usize) -> Result<usize, String> {
        let shape = &self.0.get(name).ok_or_else(|| format!("it has no {name}"))?.shape;
        shape.get(axis).copied().ok_or_else(|| format!("{name} has the shape {shape:?}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The number of items that are numbered after `prefix`: the highest number plus 1.
    pub fn count(&self, prefix: &str) -> usize {
        highest(self.0.keys().map(String::as_str), prefix).map_or(0, |highest| highest + 1)
    }
}

/// The highest number that follows `prefix` in any of the names. Numbers above 999 are ignored: no network has a
/// thousand layers.
pub(super) fn highest<'a>(names: impl Iterator<Item = &'a str>, prefix: &str) -> Option<usize> {
    let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
    names.filter_map(number).filter(|number| *number < 1000).max()
}
