//! Score-based models of the variance-preserving SDE (Song et al. 2021, arXiv:2011.13456). diffusers has
//! `ScoreSdeVpScheduler`; the index of a folder names `ScoreSdeVpPipeline`, a class of early versions of diffusers.

use super::{
    CardError, Description, Family, Recipe,
    plain_unet::{Kind, Parts},
};
use crate::{
    device::Device,
    pipelines::{Compute, Frame, Loaded, Output, PipelineError, Prepared, unguided},
    weights::{LoadError, ModelFolder},
};

/// The family of variance-preserving score models.
pub struct ScoreSdeVp;

const KIND: Kind = Kind { codebook: None, classes: false, steps: 1000 };

impl Family for ScoreSdeVp {
    fn name(&self) -> &'static str {
        "score_sde_vp"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["ScoreSdeVpPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        Parts::read(folder, KIND)?.describe(name, folder, KIND)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        Parts::read(folder, KIND)?.load(folder, device, Output::Signed)
    }
}

impl Recipe for ScoreSdeVp {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        unguided(compute, prepared).await
    }
}
