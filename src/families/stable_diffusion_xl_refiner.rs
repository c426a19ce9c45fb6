//! The refiner of Stable Diffusion XL. It improves pictures, or continues with the latents of a base model (section 2.5
//! of Podell et al. 2023, arXiv:2307.01952).

mod checkpoint;

use super::{
    ModelIndex,
    stable_diffusion::variant::{StableDiffusionVariant, VariantParameters},
    stable_diffusion_xl::{GUIDANCE, is_refiner},
};
use crate::{models, weights::Checkpoint};

/// The refiner has only the second text encoder of the base model. Its U-Net receives the picture's sizes and an
/// aesthetic score (how beautiful the picture should be).
pub struct StableDiffusionXlRefiner;

impl StableDiffusionXlRefiner {
    /// Name of the family.
    pub const NAME: &str = "stable_diffusion_xl_refiner";
}

impl StableDiffusionVariant for StableDiffusionXlRefiner {
    const NAME: &'static str = Self::NAME;
    const CLASSES: &'static [&'static str] = &models::stable_diffusion::XL_CLASSES;
    const CHECKPOINTS: &'static [&'static Checkpoint] = &[&checkpoint::CHECKPOINT];
    const PARAMETERS: VariantParameters =
        VariantParameters { time_id_count: 5, draws_from_noise: false, guidance: |_| GUIDANCE };

    fn reads(index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| Self::CLASSES.contains(&class)) && is_refiner(index)
    }
}
