//! Unconditional latent diffusion (diffusers' `LDMPipeline`; Rombach et al. 2022, arXiv:2112.10752).

use super::{
    CardError, Description, Family, Recipe,
    plain_unet::{Kind, Parts},
};
use crate::{
    device::Device,
    pipelines::{Compute, Frame, Loaded, Output, PipelineError, Prepared, unguided},
    weights::{LoadError, ModelFolder},
};

/// The family of unconditional latent diffusion models.
pub struct LdmUncond;

const KIND: Kind = Kind { codebook: Some("vqvae"), classes: false, steps: 50 };

impl Family for LdmUncond {
    fn name(&self) -> &'static str {
        "ldm_uncond"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["LDMPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        Parts::read(folder, KIND)?.describe(name, folder, KIND)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        Parts::read(folder, KIND)?.load(folder, device, Output::Signed)
    }
}

impl Recipe for LdmUncond {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        unguided(compute, prepared).await
    }
}
