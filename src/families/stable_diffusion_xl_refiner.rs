//! The refiner of Stable Diffusion XL, which betters pictures or goes on with latents that its base model leaves
//! (section 2.5 of Podell et al. 2023, arXiv:2307.01952).

mod checkpoint;

use super::{
    CardError, Description, Family, ModelIndex, Recipe,
    stable_diffusion::kin::{Kin, load},
    stable_diffusion_xl::{GUIDANCE, is_refiner},
};
use crate::{
    device::Device,
    models,
    pipelines::{Compute, Frame, Loaded, PipelineError, Prepared, text_guided},
    weights::{Checkpoint, LoadError, ModelFolder, lora::Modules},
};

/// The second of the base model's text encoders, and a U-Net that takes sizes and a score.
pub struct StableDiffusionXlRefiner;

impl StableDiffusionXlRefiner {
    pub const NAME: &str = "stable_diffusion_xl_refiner";
}

const KIN: Kin = Kin { time_ids: 5, draws_from_noise: false, guidance: |_| GUIDANCE };

impl Family for StableDiffusionXlRefiner {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn classes(&self) -> &'static [&'static str] {
        &models::stable_diffusion::XL_CLASSES
    }

    fn reads(&self, index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| self.classes().contains(&class)) && is_refiner(index)
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        KIN.describe(name, folder)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        load(folder, device)
    }

    fn checkpoints(&self) -> &'static [&'static Checkpoint] {
        &[&checkpoint::CHECKPOINT]
    }

    fn modules(&self, folder: &ModelFolder) -> Result<Modules, LoadError> {
        models::StableDiffusion::modules(folder)
    }
}

impl Recipe for StableDiffusionXlRefiner {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}
