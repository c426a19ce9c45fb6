//! The record of the tensors that were requested while a network was built.

use std::collections::BTreeMap;

use super::{LoadError, TensorMismatch};

/// The tensors that were requested while a network was built, and their faults.
#[derive(Debug, Default)]
pub(super) struct BuildReport {
    /// Every requested name, with the shape that the network expects.
    pub requested: BTreeMap<String, Vec<usize>>,
    pub mismatch: TensorMismatch,
    /// Prefixes of the names of tensors that are unused on purpose.
    pub left: Vec<String>,
    /// The first error while reading a tensor, checking its numbers, or putting it on the device.
    pub failed: Option<LoadError>,
}
