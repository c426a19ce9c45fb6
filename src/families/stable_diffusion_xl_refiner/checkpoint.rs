//! Checkpoints of this family in one file.

use crate::{
    families::stable_diffusion_xl::checkpoint::scheduler,
    weights::{Checkpoint, TextEncoder},
};

/// OpenCLIP alone, as the second of the encoders.
pub const CHECKPOINT: Checkpoint = Checkpoint {
    mark: "conditioner.embedders.0.model.",
    text_encoders: &[TextEncoder::second("conditioner.embedders.0.model.")],
    sample_size: |_| 128,
    scaling_factor: 0.13025,
    time_ids: 5,
    heeds_edm: false,
    class: |_| "StableDiffusionXLImg2ImgPipeline",
    settings: &[("force_zeros_for_empty_prompt", false), ("requires_aesthetics_score", true)],
    scheduler,
};
