//! The stages of an autoencoder's decode, as the engine asks for them.

use crate::{models::autoencoder_kl::Stage, pipelines::NetworkError};

/// The share of the work of each stage.
pub(super) fn shares(stages: &[Stage]) -> Vec<f64> {
    let all: f64 = stages.iter().map(|stage| stage.demand.work).sum();
    stages.iter().map(|stage| stage.demand.work / all).collect()
}

/// One of the stages.
///
/// # Errors
/// There are fewer.
pub(super) fn at(stages: &[Stage], index: usize) -> Result<&Stage, NetworkError> {
    stages.get(index).ok_or_else(|| failed(format!("stage {index} of {}", stages.len())))
}

/// The autoencoder cannot decode.
pub(super) fn failed(detail: String) -> NetworkError {
    NetworkError { network: "vae", detail }
}
