//! The refiner of Stable Diffusion XL, which betters pictures or goes on with latents that its base model leaves
//! (section 2.5 of Podell et al. 2023, arXiv:2307.01952).

mod checkpoint;

use super::{
    ModelIndex,
    stable_diffusion::kin::{Kin, Kindred},
    stable_diffusion_xl::{GUIDANCE, is_refiner},
};
use crate::{models, weights::Checkpoint};

/// The second of the base model's text encoders, and a U-Net that takes sizes and a score.
pub struct StableDiffusionXlRefiner;

impl StableDiffusionXlRefiner {
    pub const NAME: &str = "stable_diffusion_xl_refiner";
}

impl Kindred for StableDiffusionXlRefiner {
    const NAME: &'static str = Self::NAME;
    const CLASSES: &'static [&'static str] = &models::stable_diffusion::XL_CLASSES;
    const CHECKPOINTS: &'static [&'static Checkpoint] = &[&checkpoint::CHECKPOINT];
    const KIN: Kin = Kin { time_ids: 5, draws_from_noise: false, guidance: |_| GUIDANCE };

    fn reads(index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| Self::CLASSES.contains(&class)) && is_refiner(index)
    }
}
