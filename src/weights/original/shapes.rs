//! The shapes of the tensors in a file with original names.

use std::collections::BTreeMap;

use crate::weights::{header::Info, ldm::number};

/// The tensors of a file, with the prefix of the transformer's tensors.
pub(super) struct Shapes<'a> {
    pub tensors: &'a BTreeMap<String, Info>,
    pub prefix: &'static str,
}

impl Shapes<'_> {
    /// The shape of a tensor, if the file has it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let tensor = |name: &str| self.tensors.get(&format!("{}{name}", self.prefix));
        // Newer programs name the weight of a norm like the weight of a layer.
        let renamed = || tensor(&format!("{}.weight", name.strip_suffix(".scale")?));
        tensor(name).or_else(renamed).map(|info| info.shape.as_slice())
    }

    pub fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// The length of an axis of a tensor; the error says that the tensor, or the axis, is missing.
    pub fn axis(&self, name: &str, axis: usize) -> Result<usize, String> {
        let shape = self.shape(name).ok_or_else(|| format!("it has no {name}"))?;
        shape.get(axis).copied().ok_or_else(|| format!("{name} has the shape {shape:?}"))
    }

    /// One more than the largest number that follows `kind` in the names of tensors.
    pub fn blocks(&self, kind: &str) -> usize {
        let block = |name: &String| Some(number(name.strip_prefix(self.prefix)?.strip_prefix(kind)?, '.')?.0 + 1);
        self.tensors.keys().filter_map(block).max().unwrap_or(0)
    }
}
