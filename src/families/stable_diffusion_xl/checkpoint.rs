//! Single-file checkpoints of Stable Diffusion XL.

use serde_json::{Value, json};

use crate::{
    families::stable_diffusion::checkpoint,
    weights::{Checkpoint, Marks, Purpose, TextEncoder},
};

/// Stable Diffusion XL, with the CLIP and OpenCLIP text encoders.
pub const CHECKPOINT: Checkpoint = Checkpoint {
    mark: "conditioner.embedders.1.model.",
    text_encoders: &[
        TextEncoder::first(false, "conditioner.embedders.0.transformer."),
        TextEncoder::second("conditioner.embedders.1.model."),
    ],
    sample_size: |_| 128,
    scaling_factor: 0.13025,
    time_id_count: 6,
    // Other programs read the special tensors of EDM's noise levels only in this family.
    reads_edm_marks: true,
    class: |purpose| match purpose {
        Purpose::Text | Purpose::FewSteps => "StableDiffusionXLPipeline",
        Purpose::Inpaint => "StableDiffusionXLInpaintPipeline",
        Purpose::Edit => "StableDiffusionXLInstructPix2PixPipeline",
    },
    settings: &[("force_zeros_for_empty_prompt", true)],
    scheduler,
};

/// The scheduler configuration of the published folders of the base model and the refiner.
pub fn scheduler(purpose: Purpose, marks: &Marks) -> Value {
    if let Some((sigma_min, sigma_max)) = marks.edm {
        return json!({
            "_class_name": "EDMEulerScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
            "sigma_data": 1.0,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "sigma_schedule": "exponential",
        });
    }
    let class = if purpose == Purpose::FewSteps { "LCMScheduler" } else { "EulerDiscreteScheduler" };
    let mut scheduler = checkpoint::scheduler(class, "epsilon", marks);
    if !marks.zero_snr {
        scheduler["timestep_spacing"] = "leading".into();
    }
    scheduler["interpolation_type"] = "linear".into();
    scheduler["use_karras_sigmas"] = false.into();
    scheduler
}
