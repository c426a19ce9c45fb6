//! The common code of Stable Diffusion, Stable Diffusion XL and its refiner, and the parameters by which these families
//! differ.

use super::card::{self, Guidance};
use crate::{
    device::Device,
    families::{
        CardError, Description, Family, ModelIndex, ModelSize, Recipe,
        card::size,
        extras::{Extras, latent_rgb},
    },
    generation::Work,
    models::{StableDiffusion, latent_diffusion::Spec, prompt_tokenizers::PromptTokenizers},
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, animate_diff, text_guided},
    weights::{Checkpoint, LoadError, ModelFolder, lora::Modules},
};

/// One of the Stable Diffusion families, described by what differs between them. A type with this trait also implements
/// [`Family`] and [`Recipe`].
pub(in crate::families) trait StableDiffusionVariant: Sync {
    const NAME: &'static str;
    const CLASSES: &'static [&'static str];
    const CHECKPOINTS: &'static [&'static Checkpoint];
    const PARAMETERS: VariantParameters;

    fn reads(index: &ModelIndex) -> bool {
        index.class().is_some_and(|class| Self::CLASSES.contains(&class))
    }
}

impl<K: StableDiffusionVariant> Family for K {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn classes(&self) -> &'static [&'static str] {
        K::CLASSES
    }

    fn reads(&self, index: &ModelIndex) -> bool {
        <K as StableDiffusionVariant>::reads(index)
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        K::PARAMETERS.describe(name, folder)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        load(folder, device)
    }

    fn offloadable(&self, folder: &ModelFolder) -> Result<Vec<ModelSize>, LoadError> {
        offloadable(folder)
    }

    fn checkpoints(&self) -> &'static [&'static Checkpoint] {
        K::CHECKPOINTS
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        StableDiffusion::tokenizers(folder).map(Some)
    }

    fn modules(&self, folder: &ModelFolder) -> Result<Modules, LoadError> {
        StableDiffusion::modules(folder)
    }
}

impl<K: StableDiffusionVariant> Recipe for K {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        match prepared.job.work {
            Work::Film(_) => animate_diff(compute, prepared).await,
            _ => text_guided(compute, prepared).await,
        }
    }
}

/// The parameters by which these families differ.
pub(in crate::families) struct VariantParameters {
    /// How many numbers about a picture the U-Net receives: sizes, offsets, and in the refiner a score.
    pub time_id_count: usize,
    /// Whether the model can draw from noise alone; otherwise it only improves pictures.
    pub draws_from_noise: bool,
    /// Default steps and guidance scales.
    pub guidance: fn(&Spec) -> Guidance,
}

/// The parts that are loaded, with the stems of their weight files. Other parts, such as a safety checker, are not
/// loaded. The index does not list `vae_tiny`, because diffusers defines the parts of an index.
const PARTS: [(&str, &str); 5] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
    ("vae_tiny", "diffusion_pytorch_model"),
];

/// The sizes of the networks that [`StableDiffusion::load`] offloads.
fn offloadable(folder: &ModelFolder) -> Result<Vec<ModelSize>, LoadError> {
    let index = ModelIndex::of(folder)?;
    let size = |parts: &[(&str, &str)]| {
        let there: Vec<(&str, &str)> = parts.iter().copied().filter(|(part, _)| index.part(part).is_some()).collect();
        size(folder, &there)
    };
    let (text, vae) = (size(&PARTS[..2])?, size(&PARTS[3..4])?);
    let text = ModelSize { adaptable: text, ..ModelSize::default() };
    let vae = match StableDiffusion::upcasts_vae(folder)? {
        true => ModelSize::float32(vae),
        false => ModelSize { adaptable: vae, ..ModelSize::default() },
    };
    Ok(vec![text, vae])
}

impl VariantParameters {
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
        // The precisions are the same as in `StableDiffusion::load`.
        let upcasts_vae = StableDiffusion::upcasts_vae(folder)?;
        let is_float32 = |(part, _): &(&str, &str)| *part == "vae_tiny" || *part == "vae" && upcasts_vae;
        let (float32, adaptable): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_float32);
        let size = ModelSize { adaptable: size(folder, &adaptable)?, float32: size(folder, &float32)? };
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    /// Checks that the U-Net takes the number of time ids that this family passes to the U-Net. (The index determines
    /// the family.)
    fn check(&self, spec: &Spec) -> Result<(), LoadError> {
        if spec.time_id_count == self.time_id_count {
            return Ok(());
        }
        Err(LoadError::BadKey {
            path: ModelIndex::PATH.into(),
            key: "_class_name".into(),
            reason: format!(
                "by this class and requires_aesthetics_score, the pipeline passes {} time ids; the U-Net takes {}",
                self.time_id_count, spec.time_id_count
            ),
        })
    }
}

/// Reads the weights, and fits the preview colors if `latentd.json` does not give them.
fn load(folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
    let networks = StableDiffusion::load(folder, device)?;
    let latent_rgb = Some(latent_rgb(folder, &networks)?);
    // The fit has decoded, so an offloaded autoencoder is on the device now.
    networks.send_back();
    Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
}
