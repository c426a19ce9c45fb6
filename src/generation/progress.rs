//! How far a running generation is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{MediaType, Phase};

/// How far a running generation is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    pub step: u32,
    pub steps: u32,
    /// 0..=100.
    pub percent: f32,
    /// Seconds left, from the pace so far.
    pub eta_s: Option<f32>,
}

/// A rough look at where a run is going.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Which artifact of the generation.
    pub index: u32,
    /// After which step.
    pub step: u32,
    /// Counts the previews of the artifact from 0.
    pub preview_index: u32,
    pub media_type: MediaType,
    /// The file.
    pub bytes: Bytes,
}
