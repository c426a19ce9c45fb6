//! The progress and the previews of a running generation.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{MediaType, Phase};

/// The progress of a running generation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    pub step: u32,
    pub steps: u32,
    /// How much of the run is finished, in percent, 0..=100.
    pub percent: f32,
    /// Estimated remaining time in seconds, from the speed so far.
    pub eta_s: Option<f32>,
}

/// A preview of an unfinished picture.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Index of the artifact within the generation.
    pub index: u32,
    /// The number of finished steps.
    pub step: u32,
    /// Index of the preview within its artifact, from 0.
    pub preview_index: u32,
    pub media_type: MediaType,
    /// The bytes of the picture file.
    pub bytes: Bytes,
}
