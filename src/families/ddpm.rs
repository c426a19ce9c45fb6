//! Diffusion in pixel space (diffusers' `DDPMPipeline` and `DDIMPipeline`; Ho et al. 2020, arXiv:2006.11239).

use super::{
    CardError, Description, Family, ModelIndex, Recipe,
    plain_unet::{Kind, Parts},
};
use crate::{
    device::Device,
    pipelines::{Compute, Frame, Loaded, Output, PipelineError, Prepared, unguided},
    weights::{LoadError, ModelFolder},
};

/// The family of unconditional pixel models.
pub struct Ddpm;

/// The kind of a folder, with the default number of steps of its pipeline class.
fn kind(folder: &ModelFolder) -> Result<Kind, LoadError> {
    let steps = if ModelIndex::of(folder)?.class() == Some("DDIMPipeline") { 50 } else { 1000 };
    Ok(Kind { codebook: None, classes: false, steps })
}

impl Family for Ddpm {
    fn name(&self) -> &'static str {
        "ddpm"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["DDPMPipeline", "DDIMPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let kind = kind(folder)?;
        Parts::read(folder, kind)?.describe(name, folder, kind)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        Parts::read(folder, kind(folder)?)?.load(folder, device, Output::Signed)
    }
}

impl Recipe for Ddpm {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        unguided(compute, prepared).await
    }
}
