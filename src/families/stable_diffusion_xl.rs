//! Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952).

pub(super) mod checkpoint;

use serde_json::Value;

use super::{
    ModelIndex,
    stable_diffusion::{
        card::Guidance,
        variant::{StableDiffusionVariant, VariantParameters},
    },
};
use crate::{models, weights::Checkpoint};

/// The family with two text encoders and a U-Net that also receives picture sizes.
pub struct StableDiffusionXl;

impl StableDiffusionXl {
    /// Name of the family.
    pub const NAME: &str = "stable_diffusion_xl";
}

/// The guidance scales are the defaults of diffusers' pipelines of Stable Diffusion XL.
pub(super) const GUIDANCE: Guidance = Guidance { steps: 25, guidance_scale: 5.0, inpaint_guidance_scale: 7.5 };

/// Whether the folder's U-Net receives an aesthetic score in place of the target size.
pub(super) fn is_refiner(index: &ModelIndex) -> bool {
    index.keys.get("requires_aesthetics_score").and_then(Value::as_bool).unwrap_or(index.part("text_encoder").is_none())
}

impl StableDiffusionVariant for StableDiffusionXl {
    const NAME: &'static str = Self::NAME;
    const CLASSES: &'static [&'static str] = &models::stable_diffusion::XL_CLASSES;
    const CHECKPOINTS: &'static [&'static Checkpoint] = &[&checkpoint::CHECKPOINT];
    const PARAMETERS: VariantParameters =
        VariantParameters { time_id_count: 6, draws_from_noise: true, guidance: |_| GUIDANCE };

    fn reads(index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| Self::CLASSES.contains(&class)) && !is_refiner(index)
    }
}
