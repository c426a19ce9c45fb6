use std::fmt;

use serde_json::Value;

use super::marks::Marks;

/// A kind of checkpoints in one file: by what such a file is known, and what all published models of the kind share but no
/// tensor's shape tells. Each belongs to a family of models.
pub struct Checkpoint {
    /// What the name of some tensor begins with. Of the kinds whose marks are in a file, the
    /// one with the most of its text encoders there reads it, and of equals the last in the order of the families.
    pub mark: &'static str,
    pub text_encoders: &'static [TextEncoder],
    /// Side of the latents that the U-Net was trained on.
    pub sample_size: fn(Purpose) -> usize,
    /// The autoencoder's latents are multiplied by this for the U-Net.
    pub scaling_factor: f64,
    /// How many numbers a U-Net with an added embedding takes besides the pooled text.
    pub time_ids: usize,
    /// Whether it may be marked as trained on EDM's noise levels.
    pub heeds_edm: bool,
    /// The class of diffusers' pipelines that the folder is for.
    pub class: fn(Purpose) -> &'static str,
    /// Further keys of `model_index.json`.
    pub settings: &'static [(&'static str, bool)],
    /// `scheduler/scheduler_config.json` of the published folders.
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
    /// The folder that diffusers has it in.
    pub component: &'static str,
    /// The folder of its tokenizer.
    pub tokenizer: &'static str,
    /// Its class.
    pub class: &'static str,
    /// Whether it has OpenCLIP's names.
    pub is_open: bool,
    /// What its tensors' names begin with.
    pub prefix: &'static str,
    /// What follows the prefix in the names of tensors that are not read.
    pub unread: &'static [&'static str],
}

impl TextEncoder {
    /// diffusers' `text_encoder`.
    pub const fn first(is_open: bool, prefix: &'static str) -> Self {
        let (component, tokenizer) = ("text_encoder", "tokenizer");
        Self { component, tokenizer, class: "CLIPTextModel", is_open, prefix, unread: &[] }
    }

    /// diffusers' `text_encoder_2`, by OpenCLIP.
    pub const fn second(prefix: &'static str) -> Self {
        let (component, tokenizer) = ("text_encoder_2", "tokenizer_2");
        Self { component, tokenizer, class: "CLIPTextModelWithProjection", is_open: true, prefix, unread: &[] }
    }
}

/// What the U-Net's inputs say that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Text,
    Inpaint,
    Edit,
    /// A model that was distilled to draw in few steps (Luo et al. 2023, arXiv:2310.04378) and takes the guidance scale.
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
