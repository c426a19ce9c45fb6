//! The kinds of requests that a model accepts.

use serde::{Deserialize, Serialize};

/// A kind of request that a model accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    TextToImage,
    /// Draws from noise, without a prompt.
    Unconditional,
    /// Draws a picture of a class from noise.
    ClassConditional,
    /// Draws from a picture with added noise (Meng et al. 2022, arXiv:2108.01073).
    ImageToImage,
    /// Redraws the white part of a mask.
    Inpaint,
    /// Changes a picture by an instruction (Brooks et al. 2023, arXiv:2211.09800).
    #[serde(rename = "instruct-pix2pix")]
    InstructPix2Pix,
    /// Draws from noise by a prompt that says how to change or to use a picture.
    Edit,
    TextToAudio,
    /// Makes a film that begins with a picture.
    ImageToVideo,
    /// Makes a film from a prompt.
    TextToVideo,
}

impl Task {
    pub fn begins_with_picture(self) -> bool {
        match self {
            Task::TextToImage
            | Task::Unconditional
            | Task::ClassConditional
            | Task::TextToAudio
            | Task::TextToVideo => false,
            Task::ImageToImage | Task::Inpaint | Task::InstructPix2Pix | Task::Edit | Task::ImageToVideo => true,
        }
    }
}
