//! Stable Diffusion 1 and 2 (Rombach et al. 2022, arXiv:2112.10752), and latent consistency models (Luo et al. 2023,
//! arXiv:2310.04378), which are distilled from it.

pub(super) mod card;
pub(super) mod checkpoint;
pub(super) mod kin;
mod networks;
mod plan;

use crate::{models, weights::Checkpoint};
use card::Guidance;
use kin::{Kin, Kindred};

/// One text encoder, a U-Net of latents, an autoencoder.
pub struct StableDiffusion;

impl StableDiffusion {
    pub const NAME: &str = "stable_diffusion";
}

impl Kindred for StableDiffusion {
    const NAME: &'static str = Self::NAME;
    const CLASSES: &'static [&'static str] = &models::stable_diffusion::CLASSES;
    const CHECKPOINTS: &'static [&'static Checkpoint] = &[&checkpoint::V2, &checkpoint::V1];
    const KIN: Kin = Kin {
        time_ids: 0,
        draws_from_noise: true,
        guidance: |spec| match spec.guidance_embedding {
            // LatentConsistencyModelPipeline
            true => Guidance { steps: 4, guidance_scale: 8.5, inpaint_guidance_scale: 8.5 },
            // StableDiffusionPipeline and its neighbors
            false => Guidance { steps: 25, guidance_scale: 7.5, inpaint_guidance_scale: 7.5 },
        },
    };
}
