//! Score-based models of the variance-exploding SDE (diffusers' `ScoreSdeVePipeline`; Song et al. 2021,
//! arXiv:2011.13456).

use serde_json::Value;

use super::{
    CardError, Description, Family, Recipe,
    plain_unet::{Kind, Parts},
};
use crate::{
    device::Device,
    generation::ModelCard,
    pipelines::{Compute, Frame, Loaded, Output, PipelineError, Prepared, unguided},
    weights::{LoadError, ModelFolder},
};

/// The family of variance-exploding score models.
pub struct ScoreSdeVe;

const KIND: Kind = Kind { codebook: None, classes: false, steps: 1000 };

/// Reads the parts of a folder. Rejects `ScoreSdeVpScheduler`: pixels of this family are from 0 to 1, but pixels of
/// variance-preserving models are from −1 to 1.
fn parts(folder: &ModelFolder) -> Result<Parts, LoadError> {
    let parts = Parts::read(folder, KIND)?;
    match parts.scheduler_config.get("_class_name").and_then(Value::as_str) {
        Some(class @ "ScoreSdeVpScheduler") => Err(LoadError::UnsupportedKey {
            path: "scheduler/scheduler_config.json".into(),
            key: "_class_name".into(),
            value: Box::new(class.into()),
            supported: "a scheduler for pixels from 0 to 1, such as ScoreSdeVeScheduler".into(),
        }),
        _ => Ok(parts),
    }
}

impl Family for ScoreSdeVe {
    fn name(&self) -> &'static str {
        "score_sde_ve"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["ScoreSdeVePipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let description = parts(folder)?.describe(name, folder, KIND)?;
        // The network predicts a score for a noise level. Other samplers would take the score for a prediction of the
        // noise at a timestep.
        let card = ModelCard { own_scheduler_class_only: true, ..description.card };
        Ok(Description { card, ..description })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        parts(folder)?.load(folder, device, Output::Unit)
    }
}

impl Recipe for ScoreSdeVe {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        unguided(compute, prepared).await
    }
}
