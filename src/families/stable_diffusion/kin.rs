//! What Stable Diffusion and the families after it have in common, and what they differ in.

use super::card::{self, Guidance};
use crate::{
    device::Device,
    families::{CardError, Description, Family, ModelIndex, Recipe, card::bytes, extras::Extras},
    models::{StableDiffusion, latent_diffusion::Spec},
    pipelines::{
        Compute, Frame, LatentDiffusion, LatentRgb, Loaded, PipelineError, Prepared, decoding::decode_alone,
        text_guided,
    },
    weights::{Checkpoint, LoadError, ModelFolder, lora::Modules},
};

/// One of these families, by what it alone has.
pub(in crate::families) trait Kindred: Sync {
    const NAME: &'static str;
    const CLASSES: &'static [&'static str];
    const CHECKPOINTS: &'static [&'static Checkpoint];
    const KIN: Kin;

    fn reads(index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| Self::CLASSES.contains(&class))
    }
}

impl<K: Kindred> Family for K {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn classes(&self) -> &'static [&'static str] {
        K::CLASSES
    }

    fn reads(&self, index: &ModelIndex) -> bool {
        <K as Kindred>::reads(index)
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        K::KIN.describe(name, folder)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        load(folder, device)
    }

    fn checkpoints(&self) -> &'static [&'static Checkpoint] {
        K::CHECKPOINTS
    }

    fn modules(&self, folder: &ModelFolder) -> Result<Modules, LoadError> {
        StableDiffusion::modules(folder)
    }
}

impl<K: Kindred> Recipe for K {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}

/// What tells these families apart.
pub(in crate::families) struct Kin {
    /// How many numbers the U-Net takes of the sizes of a picture.
    pub time_ids: usize,
    /// Whether it draws from noise alone; another one only betters pictures.
    pub draws_from_noise: bool,
    pub guidance: fn(&Spec) -> Guidance,
}

/// What the weights' file of a part is called. Other parts, such as a safety checker, are not loaded. The tiny decoder is
/// beside the index, which is diffusers' and does not know it.
const PARTS: [(&str, &str); 5] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
    ("vae_tiny", "diffusion_pytorch_model"),
];

impl Kin {
    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let (spec, scheduler_config, sizes) = StableDiffusion::describe(folder)?;
        self.check(&spec)?;
        let card = card::card(name, &extras, &spec, ((self.guidance)(&spec), self.draws_from_noise), scheduler_config)?;
        let mut notes = folder.notes();
        notes.extend(StableDiffusion::check(folder)?);
        let index = ModelIndex::of(folder)?;
        let is_there = |part: &str| index.part(part).is_some() || part == "vae_tiny" && spec.tiny_decoder;
        let parts: Vec<(&str, &str)> = PARTS.into_iter().filter(|(part, _)| is_there(part)).collect();
        Ok(Description { card, bytes: bytes(folder, &parts)?, notes, outline: Box::new(sizes) })
    }

    /// The U-Net must be of the family that the index says.
    fn check(&self, spec: &Spec) -> Result<(), LoadError> {
        if spec.time_ids == self.time_ids {
            return Ok(());
        }
        Err(LoadError::BadKey {
            path: ModelIndex::PATH.into(),
            key: "_class_name".into(),
            reason: format!(
                "the pipeline, by this and requires_aesthetics_score, gives the U-Net {} numbers of sizes; it takes {}",
                self.time_ids, spec.time_ids
            ),
        })
    }
}

/// Reads the weights.
fn load(folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
    let networks = StableDiffusion::load(folder, device)?;
    // The card was read before, so a file that is no good has been refused already.
    let given = Extras::read(folder).ok().and_then(|extras| extras.preview);
    let latent_rgb = match given.filter(|map| map.weight.len() == networks.spec().latent_channels) {
        Some(map) => map,
        None => {
            let fitted = LatentRgb::fit(networks.spec().latent_channels, |latents| decode_alone(&networks, latents));
            fitted.map_err(|error| LoadError::Preview(error.to_string()))?
        }
    };
    Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
}
