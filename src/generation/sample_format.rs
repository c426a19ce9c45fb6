//! The numbers of a sound file.

use serde::{Deserialize, Serialize};

/// How a sound file stores its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleFormat {
    /// Integers of 16 bits. Samples are rounded.
    #[default]
    S16,
    /// Floats of 32 bits, without rounding.
    F32,
}

impl SampleFormat {
    pub const ALL: [SampleFormat; 2] = [SampleFormat::S16, SampleFormat::F32];

    /// The name in requests.
    pub fn name(self) -> &'static str {
        match self {
            SampleFormat::S16 => "s16",
            SampleFormat::F32 => "f32",
        }
    }
}
