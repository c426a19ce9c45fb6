//! The kinds of checkpoints in one file.

use std::fmt;

use serde_json::Value;

use super::marks::Marks;

/// A kind of checkpoint in one file: how to recognize such a file, and the properties that all published models of the
/// kind share, but that cannot be seen from the shapes of tensors. Each kind belongs to a family of models.
pub struct Checkpoint {
    /// A prefix that at least one tensor's name has. If a file has the prefixes of several kinds, it is of the kind for
    /// whose text encoders it has the most tensors.
    pub mark: &'static str,
    pub text_encoders: &'static [TextEncoder],
    /// Side of the latents that the U-Net was trained on.
    pub sample_size: fn(Purpose) -> usize,
    /// Latents for the U-Net are the autoencoder's latents times this factor.
    pub scaling_factor: f64,
    /// How many numbers a U-Net with an added embedding takes in addition to the pooled text.
    pub time_id_count: usize,
    /// Whether the special tensors that mark training on EDM's noise levels are read.
    pub reads_edm_marks: bool,
    /// The class of diffusers' pipeline for the folder.
    pub class: fn(Purpose) -> &'static str,
    /// Further keys of `model_index.json`.
    pub settings: &'static [(&'static str, bool)],
    /// `scheduler/scheduler_config.json`, as in the published folders.
    pub scheduler: fn(Purpose, &Marks) -> Value,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({})", self.mark)
    }
}

/// A text encoder in a file.
#[derive(Clone, Copy, Debug)]
pub struct TextEncoder {
    /// The encoder's folder in diffusers' layout.
    pub component: &'static str,
    /// The folder of the encoder's tokenizer.
    pub tokenizer: &'static str,
    /// The encoder's class in transformers.
    pub class: &'static str,
    /// Whether the tensors have OpenCLIP's names.
    pub is_open: bool,
    /// The prefix of the tensors' names.
    pub prefix: &'static str,
    /// Parts that follow the prefix in the names of tensors that are not read.
    pub unread: &'static [&'static str],
}

impl TextEncoder {
    /// The encoder that diffusers calls `text_encoder`.
    pub const fn first(is_open: bool, prefix: &'static str) -> Self {
        let (component, tokenizer) = ("text_encoder", "tokenizer");
        Self { component, tokenizer, class: "CLIPTextModel", is_open, prefix, unread: &[] }
    }

    /// The encoder that diffusers calls `text_encoder_2`, which comes from OpenCLIP.
    pub const fn second(prefix: &'static str) -> Self {
        let (component, tokenizer) = ("text_encoder_2", "tokenizer_2");
        Self { component, tokenizer, class: "CLIPTextModelWithProjection", is_open: true, prefix, unread: &[] }
    }
}

/// The purpose of a U-Net, which follows from its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Text,
    Inpaint,
    /// Editing of pictures by instructions (InstructPix2Pix).
    Edit,
    /// Text to picture in few steps, by a distilled model (Luo et al. 2023, arXiv:2310.04378) that takes the guidance
    /// scale.
    FewSteps,
}

impl Purpose {
    pub(super) fn of(inputs: usize, outputs: usize, takes_the_scale: bool) -> Self {
        match inputs {
            _ if inputs == 2 * outputs + 1 => Self::Inpaint,
            _ if inputs == 2 * outputs => Self::Edit,
            _ if takes_the_scale => Self::FewSteps,
            _ => Self::Text,
        }
    }
}
