//! Consistency models (diffusers' `ConsistencyModelPipeline`; Song et al. 2023, arXiv:2303.01469).

use super::{
    CardError, Description, Family, Recipe,
    plain_unet::{Kind, Parts},
};
use crate::{
    device::Device,
    pipelines::{Compute, Frame, Loaded, Output, PipelineError, Prepared, unguided},
    weights::{LoadError, ModelFolder},
};

/// The family of consistency models.
pub struct Consistency;

const KIND: Kind = Kind { codebook: None, classes: true, steps: 1 };

impl Family for Consistency {
    fn name(&self) -> &'static str {
        "consistency"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["ConsistencyModelPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        Parts::read(folder, KIND)?.describe(name, folder, KIND)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        Parts::read(folder, KIND)?.load(folder, device, Output::Signed)
    }
}

impl Recipe for Consistency {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        unguided(compute, prepared).await
    }
}
