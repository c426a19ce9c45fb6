//! Single-file checkpoints of the refiner of Stable Diffusion XL.

use crate::{
    families::stable_diffusion_xl::checkpoint::scheduler,
    weights::{Checkpoint, TextEncoder},
};

/// The refiner. Its only text encoder, OpenCLIP, is `text_encoder_2` in diffusers' folders.
pub const CHECKPOINT: Checkpoint = Checkpoint {
    mark: "conditioner.embedders.0.model.",
    text_encoders: &[TextEncoder::second("conditioner.embedders.0.model.")],
    sample_size: |_| 128,
    scaling_factor: 0.13025,
    time_id_count: 5,
    reads_edm_marks: false,
    class: |_| "StableDiffusionXLImg2ImgPipeline",
    settings: &[("force_zeros_for_empty_prompt", false), ("requires_aesthetics_score", true)],
    scheduler,
};
