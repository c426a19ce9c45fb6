//! Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952).

pub(super) mod checkpoint;

use serde_json::Value;

use super::{
    CardError, Description, Family, ModelIndex, Recipe,
    stable_diffusion::{
        card::Guidance,
        kin::{Kin, load},
    },
};
use crate::{
    device::Device,
    models,
    pipelines::{Compute, Frame, Loaded, PipelineError, Prepared, text_guided},
    weights::{Checkpoint, LoadError, ModelFolder, lora::Modules},
};

/// Two text encoders, and a U-Net that takes sizes.
pub struct StableDiffusionXl;

impl StableDiffusionXl {
    pub const NAME: &str = "stable_diffusion_xl";
}

const KIN: Kin = Kin { time_ids: 6, draws_from_noise: true, guidance: |_| GUIDANCE };

/// StableDiffusionXLPipeline, …Img2ImgPipeline and …InpaintPipeline
pub(super) const GUIDANCE: Guidance = Guidance { steps: 25, guidance_scale: 5.0, inpaint_guidance_scale: 7.5 };

/// Whether the folder's U-Net takes a score of how pleasing a picture is in place of the size that is wanted.
pub(super) fn is_refiner(index: &ModelIndex) -> bool {
    index.keys.get("requires_aesthetics_score").and_then(Value::as_bool).unwrap_or(index.part("text_encoder").is_none())
}

impl Family for StableDiffusionXl {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn classes(&self) -> &'static [&'static str] {
        &models::stable_diffusion::XL_CLASSES
    }

    fn reads(&self, index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| self.classes().contains(&class)) && !is_refiner(index)
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

impl Recipe for StableDiffusionXl {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}
