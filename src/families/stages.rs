//! The stages in which an autoencoder decodes, in the form that the engine needs.

use crate::{models::autoencoder_kl::Stage, pipelines::NetworkError};

/// For each stage, its share of the work of all stages. The shares add up to 1.
pub(super) fn shares(stages: &[Stage]) -> Vec<f64> {
    let all: f64 = stages.iter().map(|stage| stage.demand.work).sum();
    stages.iter().map(|stage| stage.demand.work / all).collect()
}

/// The stage with this index.
///
/// # Errors
/// There is no stage with this index.
pub(super) fn at(stages: &[Stage], index: usize) -> Result<&Stage, NetworkError> {
    stages.get(index).ok_or_else(|| failed(format!("stage {index} of {}", stages.len())))
}

/// The error of an autoencoder that cannot decode.
pub(super) fn failed(detail: String) -> NetworkError {
    NetworkError::new("vae", detail)
}
