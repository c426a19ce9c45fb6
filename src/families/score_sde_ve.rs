//! Score-based models of stochastic differential equations (diffusers' `ScoreSdeVePipeline`; Song et al. 2021, arXiv:2011.13456).

use serde_json::Value;

use super::{
    CardError, Description, Family, Recipe,
    plain_unet::{Kind, Parts},
};
use crate::{
    device::Device,
    pipelines::{Compute, Frame, Loaded, Output, PipelineError, Prepared, unguided},
    weights::{LoadError, ModelFolder},
};

pub struct ScoreSdeVe;

const KIND: Kind = Kind { codebook: None, classes: false, steps: 1000 };

impl Family for ScoreSdeVe {
    fn name(&self) -> &'static str {
        "score_sde_ve"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["ScoreSdeVePipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        Parts::read(folder, KIND)?.describe(name, folder, KIND)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let parts = Parts::read(folder, KIND)?;
        // Networks of the variance-preserving equation were trained on levels around zero.
        let class = parts.scheduler_config.get("_class_name").and_then(Value::as_str);
        let output = if class == Some("ScoreSdeVpScheduler") { Output::Signed } else { Output::Unit };
        parts.load(folder, device, output)
    }
}

impl Recipe for ScoreSdeVe {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        unguided(compute, prepared).await
    }
}
