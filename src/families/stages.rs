//! Stages of an autoencoder's decode, in the form that the engine requests.

use crate::{models::autoencoder_kl::Stage, pipelines::NetworkError};

/// The share of each stage in the work of all stages.
pub(super) fn shares(stages: &[Stage]) -> Vec<f64> {
    let all: f64 = stages.iter().map(|stage| stage.demand.work).sum();
    stages.iter().map(|stage| stage.demand.work / all).collect()
}

/// The stage with this index.
///
/// # Errors
/// There are fewer stages.
pub(super) fn at(stages: &[Stage], index: usize) -> Result<&Stage, NetworkError> {
    stages.get(index).ok_or_else(|| failed(format!("stage {index} of {}", stages.len())))
}

/// The error of an autoencoder that cannot decode.
pub(super) fn failed(detail: String) -> NetworkError {
    NetworkError::new("vae", detail)
}
