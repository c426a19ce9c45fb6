//! Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952).

pub(super) mod checkpoint;

use serde_json::Value;

use super::{
    ModelIndex,
    stable_diffusion::{
        card::Guidance,
        kin::{Kin, Kindred},
    },
};
use crate::{models, weights::Checkpoint};

/// Two text encoders, and a U-Net that takes sizes.
pub struct StableDiffusionXl;

impl StableDiffusionXl {
    pub const NAME: &str = "stable_diffusion_xl";
}

/// StableDiffusionXLPipeline, …Img2ImgPipeline and …InpaintPipeline
pub(super) const GUIDANCE: Guidance = Guidance { steps: 25, guidance_scale: 5.0, inpaint_guidance_scale: 7.5 };

/// Whether the folder's U-Net takes a score of how pleasing a picture is in place of the size that is wanted.
pub(super) fn is_refiner(index: &ModelIndex) -> bool {
    index.keys.get("requires_aesthetics_score").and_then(Value::as_bool).unwrap_or(index.part("text_encoder").is_none())
}

impl Kindred for StableDiffusionXl {
    const NAME: &'static str = Self::NAME;
    const CLASSES: &'static [&'static str] = &models::stable_diffusion::XL_CLASSES;
    const CHECKPOINTS: &'static [&'static Checkpoint] = &[&checkpoint::CHECKPOINT];
    const KIN: Kin = Kin { time_ids: 6, draws_from_noise: true, guidance: |_| GUIDANCE };

    fn reads(index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| Self::CLASSES.contains(&class)) && !is_refiner(index)
    }
}
