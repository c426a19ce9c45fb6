//! The families of models: what each one can do, how its files are read, and which recipe draws with it.
//!
//! Only this module and [`models`](crate::models) name families. A new family needs one file here, its networks in
//! `models`, and an entry in the list below.

mod audio_ldm;
mod autoencoder;
mod card;
mod classifier_guidance;
mod consistency;
mod ddpm;
mod dit;
mod dream_lite;
mod extras;
mod family;
mod flux;
mod flux2_klein;
mod latent_plan;
mod ldm_uncond;
mod pixart;
mod plain_unet;
mod plan;
mod score_sde_ve;
mod score_sde_vp;
mod stable_audio_3;
pub mod stable_diffusion;
mod stable_diffusion_3;
mod stable_diffusion_xl;
mod stable_diffusion_xl_refiner;
mod stable_video_diffusion;
mod stages;
mod wan;
mod z_image;

pub use card::CardError;
pub use family::{Description, Family, ModelIndex, ModelSize, Outline, Recipe};
pub use plan::{ControlDemand, Plan, SamplingDemand};

use audio_ldm::AudioLdm;
use classifier_guidance::ClassifierGuidance;
use consistency::Consistency;
use ddpm::Ddpm;
use dit::Dit;
use dream_lite::DreamLite;
use flux::Flux;
use flux2_klein::Flux2Klein;
use ldm_uncond::LdmUncond;
use pixart::Pixart;
use score_sde_ve::ScoreSdeVe;
use score_sde_vp::ScoreSdeVp;
use stable_audio_3::StableAudio3;
use stable_diffusion::StableDiffusion;
use stable_diffusion_3::StableDiffusion3;
use stable_diffusion_xl::StableDiffusionXl;
use stable_diffusion_xl_refiner::StableDiffusionXlRefiner;
use stable_video_diffusion::StableVideoDiffusion;
use wan::Wan;
use z_image::ZImage;

use crate::{
    pipelines::{Compute, Frame, PipelineError, Prepared},
    weights::{Checkpoint, LoadError, ModelFolder},
};

/// Defines `FAMILIES` and `draw` for a list of families.
macro_rules! families {
    ($($family:expr),+ $(,)?) => {
        /// All families. The first family of this list that reads a folder is the family of the folder (see [`of`]).
        pub static FAMILIES: &[&dyn Family] = &[$(&$family),+];

        /// Computes a prepared generation with the recipe of its model's family.
        ///
        /// # Errors
        /// The recipe fails, or no family of the list has the name of the model's family.
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
    StableDiffusion3,
    Flux,
    Ddpm,
    LdmUncond,
    Consistency,
    ScoreSdeVe,
    ScoreSdeVp,
    Dit,
    ClassifierGuidance,
    Pixart,
    ZImage,
    Flux2Klein,
    DreamLite,
    AudioLdm,
    StableAudio3,
    StableVideoDiffusion,
    Wan
];

/// The error for a single-file checkpoint that is a pickle.
pub const PICKLED_CHECKPOINT: &str = "a pickle, which can run code when it is read; only safetensors and GGUF files are read: convert it in Python with diffusers, \
     StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)";

/// The family that reads a folder.
///
/// # Errors
/// The folder has no readable `model_index.json`, or no family reads it.
pub fn of(folder: &ModelFolder) -> Result<&'static dyn Family, LoadError> {
    let index = ModelIndex::of(folder)?;
    let found = FAMILIES.iter().find(|family| family.reads(&index));
    found.copied().ok_or_else(|| LoadError::UnsupportedKey {
        path: ModelIndex::PATH.into(),
        key: "_class_name".into(),
        value: Box::new(index.keys.get("_class_name").cloned().unwrap_or_default()),
        supported: classes().join(", "),
    })
}

/// All kinds of single-file checkpoints that families read.
pub fn checkpoints() -> Vec<&'static Checkpoint> {
    FAMILIES.iter().flat_map(|family| family.checkpoints()).copied().collect()
}

/// All pipeline classes that families read, each once. Most are classes of diffusers.
pub fn classes() -> Vec<&'static str> {
    let mut classes: Vec<&str> = Vec::new();
    for class in FAMILIES.iter().flat_map(|family| family.classes()) {
        if !classes.contains(class) {
            classes.push(class);
        }
    }
    classes
}
