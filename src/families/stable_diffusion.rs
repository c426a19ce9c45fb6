//! Stable Diffusion 1 and 2 (Rombach et al. 2022, arXiv:2112.10752), and latent consistency models (Luo et al. 2023,
//! arXiv:2310.04378), which are distilled from it.

pub(super) mod card;
pub(super) mod checkpoint;
pub(super) mod kin;
mod networks;
mod plan;

use super::{CardError, Description, Family, Recipe};
use crate::{
    device::Device,
    models,
    pipelines::{Compute, Frame, Loaded, PipelineError, Prepared, text_guided},
    weights::{Checkpoint, LoadError, ModelFolder, lora::Modules},
};
use card::Guidance;
use kin::{Kin, load};

/// One text encoder, a U-Net of latents, an autoencoder.
pub struct StableDiffusion;

impl StableDiffusion {
    pub const NAME: &str = "stable_diffusion";
}

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

impl Family for StableDiffusion {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn classes(&self) -> &'static [&'static str] {
        &models::stable_diffusion::CLASSES
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        KIN.describe(name, folder)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        load(folder, device)
    }

    fn checkpoints(&self) -> &'static [&'static Checkpoint] {
        &[&checkpoint::V2, &checkpoint::V1]
    }

    fn modules(&self, folder: &ModelFolder) -> Result<Modules, LoadError> {
        models::StableDiffusion::modules(folder)
    }
}

impl Recipe for StableDiffusion {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}
