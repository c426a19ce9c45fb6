//! Stable Diffusion 1 and 2 (Rombach et al. 2022, arXiv:2112.10752), and latent consistency models, which are distilled
//! from them (Luo et al. 2023, arXiv:2310.04378).

pub(super) mod card;
pub(super) mod checkpoint;
mod networks;
mod plan;
pub(super) mod variant;

use crate::{models, weights::Checkpoint};
use card::Guidance;
use variant::{StableDiffusionVariant, VariantParameters};

/// The family with one text encoder, a U-Net of latents and an autoencoder.
pub struct StableDiffusion;

impl StableDiffusion {
    /// Name of the family.
    pub const NAME: &str = "stable_diffusion";
}

impl StableDiffusionVariant for StableDiffusion {
    const NAME: &'static str = Self::NAME;
    const CLASSES: &'static [&'static str] = &models::stable_diffusion::CLASSES;
    const CHECKPOINTS: &'static [&'static Checkpoint] = &[&checkpoint::V2, &checkpoint::V1];
    const PARAMETERS: VariantParameters = VariantParameters {
        time_id_count: 0,
        draws_from_noise: true,
        guidance: |spec| match spec.guidance_embedding {
            // Defaults of diffusers' `LatentConsistencyModelPipeline`.
            true => Guidance { steps: 4, guidance_scale: 8.5, inpaint_guidance_scale: 8.5 },
            // The guidance scales are the defaults of diffusers' pipelines of Stable Diffusion.
            false => Guidance { steps: 25, guidance_scale: 7.5, inpaint_guidance_scale: 7.5 },
        },
    };
}
