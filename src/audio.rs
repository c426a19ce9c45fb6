//! Sounds as samples and as files.

mod wav;

pub use wav::{AudioError, encode_wav};

/// A sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Waveform {
    /// Samples per second and channel.
    pub sample_rate: u32,
    pub channels: u16,
    /// Samples in [-1, 1]. Those of the channels alternate.
    pub samples: Vec<f32>,
}

impl Waveform {
    /// The number of samples of each channel.
    pub fn length(&self) -> usize {
        self.samples.len() / usize::from(self.channels.max(1))
    }
}
