//! Single-file checkpoints of Stable Diffusion 1 and 2.

use serde_json::{Value, json};

use crate::weights::{Checkpoint, Marks, Purpose, TextEncoder};

/// Stable Diffusion 1, with the CLIP text encoder.
pub const V1: Checkpoint = Checkpoint {
    mark: "cond_stage_model.transformer.",
    text_encoders: &[TextEncoder::first(false, "cond_stage_model.transformer.")],
    sample_size: |_| 64,
    scaling_factor: 0.18215,
    time_id_count: 0,
    reads_edm_marks: false,
    class,
    settings: &[],
    scheduler: |purpose, marks| {
        let class = match purpose {
            Purpose::FewSteps => "LCMScheduler",
            // PNDM does not support zero terminal SNR.
            _ if marks.zero_snr => "DDIMScheduler",
            Purpose::Edit => "EulerAncestralDiscreteScheduler",
            Purpose::Text | Purpose::Inpaint => "PNDMScheduler",
        };
        scheduler(class, "epsilon", marks)
    },
};

/// Stable Diffusion 2, with the OpenCLIP text encoder. A text-to-image checkpoint without a special tensor or header
/// note ([`Marks`]) that gives the prediction type is assumed to predict velocity, like Stable Diffusion 2.1 for
/// 768 × 768 pixels; diffusers assumes the same.
pub const V2: Checkpoint = Checkpoint {
    mark: "cond_stage_model.model.",
    text_encoders: &[TextEncoder {
        // The model uses the hidden states before the encoder's last layer, so the weights of that layer are not read.
        unread: &["transformer.resblocks.23.", "text_projection"],
        ..TextEncoder::first(true, "cond_stage_model.model.")
    }],
    sample_size: |purpose| if purpose == Purpose::Text { 96 } else { 64 },
    scaling_factor: 0.18215,
    time_id_count: 0,
    reads_edm_marks: false,
    class,
    settings: &[],
    scheduler: |purpose, marks| {
        let class = match purpose {
            Purpose::FewSteps => "LCMScheduler",
            Purpose::Edit => "EulerAncestralDiscreteScheduler",
            Purpose::Text | Purpose::Inpaint => "DDIMScheduler",
        };
        scheduler(class, if purpose == Purpose::Text { "v_prediction" } else { "epsilon" }, marks)
    },
};

fn class(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::FewSteps => "LatentConsistencyModelPipeline",
        Purpose::Text => "StableDiffusionPipeline",
        Purpose::Inpaint => "StableDiffusionInpaintPipeline",
        Purpose::Edit => "StableDiffusionInstructPix2PixPipeline",
    }
}

/// The scheduler configuration for the noise levels that the published models were trained on. `prediction` is their
/// prediction type, which a special tensor or header note of the file ([`Marks`]) overrides.
pub fn scheduler(class: &str, prediction: &str, marks: &Marks) -> Value {
    let mut scheduler = json!({
        "_class_name": class,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
        "prediction_type": marks.prediction.map_or(prediction, |(prediction, _)| prediction),
    });
    if marks.zero_snr {
        scheduler["rescale_betas_zero_snr"] = true.into();
        scheduler["timestep_spacing"] = "trailing".into();
    }
    scheduler
}
