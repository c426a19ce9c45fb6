//! The families of models: what each can be asked for, how its files are read, and which recipe draws with it.
//!
//! This is the only room that names a family. A new one is a file in here, its networks in [`models`](crate::models), and a
//! row of the table below.

mod card;
mod classifier_guidance;
mod consistency;
mod ddpm;
mod dit;
mod extras;
mod family;
mod ldm_uncond;
mod plain_unet;
mod plan;
mod score_sde_ve;
mod score_sde_vp;
pub mod stable_diffusion;
mod stable_diffusion_xl;
mod stable_diffusion_xl_refiner;
mod stages;

pub use card::CardError;
pub use family::{Description, Family, ModelIndex, Outline, Recipe};
pub use plan::{ControlDemand, Plan, Sampling};

use classifier_guidance::ClassifierGuidance;
use consistency::Consistency;
use ddpm::Ddpm;
use dit::Dit;
use ldm_uncond::LdmUncond;
use score_sde_ve::ScoreSdeVe;
use score_sde_vp::ScoreSdeVp;
use stable_diffusion::StableDiffusion;
use stable_diffusion_xl::StableDiffusionXl;
use stable_diffusion_xl_refiner::StableDiffusionXlRefiner;

use crate::{
    pipelines::{Compute, Frame, PipelineError, Prepared},
    weights::{Checkpoint, LoadError, ModelFolder},
};

/// The table of families: a row for each.
macro_rules! families {
    ($($family:expr),+ $(,)?) => {
        pub static FAMILIES: &[&dyn Family] = &[$(&$family),+];

        /// Draws what was prepared, by the recipe of its model's family.
        ///
        /// # Errors
        /// Those of the recipe.
        pub async fn draw(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
            let family = prepared.model.family;
            $(
                if family == Family::name(&$family) {
                    return Recipe::draw(&$family, compute, prepared).await;
                }
            )+
            Err(PipelineError::NoFamily(family))
        }
    };
}

families![
    StableDiffusion,
    StableDiffusionXl,
    StableDiffusionXlRefiner,
    Ddpm,
    LdmUncond,
    Consistency,
    ScoreSdeVe,
    ScoreSdeVp,
    Dit,
    ClassifierGuidance
];

/// What people should do with a checkpoint in one file that is no safetensors file.
pub const PICKLED_CHECKPOINT: &str = "a pickle, which can run code when it is read; only safetensors files are read: convert it in Python with diffusers, \
     StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)";

/// The family of a folder.
///
/// # Errors
/// It has no `model_index.json` that can be read, or no family reads it.
pub fn of(folder: &ModelFolder) -> Result<&'static dyn Family, LoadError> {
    let index = ModelIndex::of(folder)?;
    let found = FAMILIES.iter().find(|family| family.reads(&index));
    found.copied().ok_or_else(|| LoadError::UnsupportedKey {
        path: ModelIndex::PATH.into(),
        key: "_class_name".into(),
        value: index.keys.get("_class_name").cloned().unwrap_or_default(),
        supported: classes().join(", "),
    })
}

/// The kinds of checkpoints in one file that are read.
pub fn checkpoints() -> Vec<&'static Checkpoint> {
    FAMILIES.iter().flat_map(|family| family.checkpoints()).copied().collect()
}

/// All classes of diffusers' pipelines that are read, each once.
pub fn classes() -> Vec<&'static str> {
    let mut classes: Vec<&str> = Vec::new();
    for class in FAMILIES.iter().flat_map(|family| family.classes()) {
        if !classes.contains(class) {
            classes.push(class);
        }
    }
    classes
}
