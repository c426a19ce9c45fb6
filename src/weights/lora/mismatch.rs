//! The error of a LoRA file that does not fit a model.

use std::fmt;

use crate::weights::LoadError;

/// How many faults of each kind an error lists.
const LISTED: usize = 8;

/// Everything in an adapter's file that does not fit the model.
#[derive(Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct LoraMismatch {
    /// The name of the file.
    pub path: String,
    /// Keys that belong to no pair and to no α.
    pub unknown: Vec<String>,
    /// Keys of other kinds of adapters, with the names of the kinds.
    pub unsupported: Vec<(String, &'static str)>,
    /// Keys of modules that the model does not have.
    pub elsewhere: Vec<String>,
    /// Keys of tensors that the file has a second time, under another key: the same role in the same module.
    pub repeated: Vec<String>,
    /// Sites without a complete pair of matrices: the site, and which tensors it has and lacks.
    pub halved: Vec<(String, &'static str)>,
    /// Tensors whose type is not a float: key and type.
    pub not_float: Vec<(String, String)>,
    /// Site, key or metadata entry, and what is wrong with its shapes, rank or numbers.
    pub unfit: Vec<(String, String)>,
}

impl LoraMismatch {
    pub(super) fn of(path: &str) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Returns `value` if there are no faults.
    pub(super) fn none_or<T>(self, value: T) -> Result<T, LoadError> {
        if self.is_empty() { Ok(value) } else { Err(Box::new(self).into()) }
    }

    fn is_empty(&self) -> bool {
        let Self { path: _, unknown, unsupported, elsewhere, repeated, halved, not_float, unfit } = self;
        [unknown, elsewhere, repeated].iter().all(|keys| keys.is_empty())
            && unsupported.is_empty()
            && halved.is_empty()
            && not_float.is_empty()
            && unfit.is_empty()
    }
}

impl fmt::Display for LoraMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not a LoRA for this model", self.path)?;
        list(f, "kinds that are not supported", self.unsupported.iter().map(|(key, kind)| format!("{key} ({kind})")))?;
        list(f, "unknown keys", self.unknown.iter())?;
        list(f, "keys of modules that the model does not have", self.elsewhere.iter())?;
        list(f, "keys that repeat another", self.repeated.iter())?;
        list(f, "incomplete pairs", self.halved.iter().map(|(site, what)| format!("{site} has {what}")))?;
        list(
            f,
            "tensors of a type that is not a float",
            self.not_float.iter().map(|(key, dtype)| format!("{key} is {dtype}")),
        )?;
        list(f, "shapes and numbers that do not fit", self.unfit.iter().map(|(site, what)| format!("{site}: {what}")))
    }
}

/// Writes the first few faults of one kind, and how many more there are.
fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    faults: impl ExactSizeIterator<Item = T>,
) -> fmt::Result {
    let count = faults.len();
    for (i, fault) in faults.take(LISTED).enumerate() {
        let before = if i == 0 { format!("; {kind}: ") } else { ", ".to_owned() };
        write!(f, "{before}{fault}")?;
    }
    if count > LISTED { write!(f, " and {} more", count - LISTED) } else { Ok(()) }
}
