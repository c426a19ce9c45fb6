use std::collections::BTreeMap;

use super::{LoadError, TensorMismatch};

/// What was asked for while a network was built, and what was wrong with it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Every name asked for, with the shape that the network expects.
    pub requested: BTreeMap<String, Vec<usize>>,
    pub mismatch: TensorMismatch,
    /// Names that start like this are nobody's, on purpose.
    pub left: Vec<String>,
    /// The first tensor that could not be read from its file or put on the device.
    pub failed: Option<LoadError>,
}
