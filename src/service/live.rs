//! What happens right now to the generations of this process: progress and previews, the latest state only.

use bytes::Bytes;
use serde::Serialize;

/// How far a running generation is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    pub phase: Phase,
    pub step: u32,
    pub steps: u32,
    /// 0..=100.
    pub percent: f32,
    /// Seconds left, from the pace so far.
    pub eta_s: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Loading,
    Encoding,
    Denoising,
    Decoding,
    Saving,
}

/// A rough picture of where a run is going.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Which image of the generation.
    pub index: u32,
    /// After which step.
    pub step: u32,
    /// Counts the previews of the generation from 0.
    pub preview_index: u32,
    /// A PNG file.
    pub png: Bytes,
}

/// The hub between worker and watchers.
#[derive(Debug)]
pub struct Live {}
