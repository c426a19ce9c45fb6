//! Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv:2403.03206).

mod description;
mod networks;
mod plan;
mod text;

use super::{
    CardError, Description, Family, ModelSize, Recipe,
    card::{size, size_as_stored},
    extras::{Extras, latent_rgb},
    stable_diffusion::card::{Guidance, card},
};
use crate::{
    device::{Device, Precision},
    generation::ModelCard,
    models::prompt_tokenizers::PromptTokenizers,
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, text_guided},
    weights::{LoadError, ModelFolder, lora::Modules},
};
use description::Configurations;
use networks::Sd3Networks;

/// The family with a transformer, two CLIP text encoders and an optional T5 text encoder.
pub struct StableDiffusion3;

impl StableDiffusion3 {
    /// Name of the family.
    pub const NAME: &str = "stable_diffusion_3";
}

/// The default and the largest number of T5's tokens in diffusers' `StableDiffusion3Pipeline`.
const SEQUENCE_LENGTHS: (u32, u32) = (256, 512);

/// The defaults of diffusers' `StableDiffusion3Pipeline`.
const GUIDANCE: Guidance = Guidance { steps: 28, guidance_scale: 7.0, inpaint_guidance_scale: 7.0 };

impl Family for StableDiffusion3 {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn classes(&self) -> &'static [&'static str] {
        &["StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let mut configurations = Configurations::read(folder)?;
        let (sizes, spec) = (&configurations.sizes, configurations.spec());
        let scheduler_config = std::mem::take(&mut configurations.scheduler_config);
        let card = ModelCard {
            // Without T5, zeros take the place of its states.
            sequence_lengths: Some(SEQUENCE_LENGTHS),
            // Weights of words would change only the states of CLIP, which are a small part of the prompt's states.
            weighted_prompts: false,
            skippable_layers: sizes.transformer.num_layers as u32,
            // A block with a second attention has more modules, so it counts twice.
            transformer_blocks: sizes.transformer.num_layers + sizes.transformer.dual_attention_layers.len(),
            max_side_pixels: Some((sizes.transformer.pos_embed_max_size * spec.size_multiple) as u32),
            ..card(name, &extras, &spec, (GUIDANCE, true), scheduler_config)?
        };
        let mut notes = folder.notes();
        notes.append(&mut configurations.notes);
        notes.extend(Sd3Networks::check(folder, sizes)?);
        // The precisions are the same as in `Sd3Networks::load`.
        let is_float32 =
            |(part, _): &(&str, &str)| *part == "vae" && sizes.vae_precision(Precision::F16) == Precision::F32;
        let (float32, adaptable): (Vec<_>, Vec<_>) = sizes.parts().into_iter().partition(is_float32);
        let size = ModelSize { adaptable: size_as_stored(folder, &adaptable)?, float32: size(folder, &float32)? };
        Ok(Description { card, size, notes, outline: Box::new(configurations.sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = Sd3Networks::load(folder, device)?;
        let latent_rgb = Some(latent_rgb(folder, &networks)?);
        Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        Ok(Some(Configurations::read(folder)?.tokenizers.of_prompts()))
    }

    fn modules(&self, folder: &ModelFolder) -> Result<Modules, LoadError> {
        Ok(networks::modules(&Configurations::read(folder)?.sizes))
    }
}

impl Recipe for StableDiffusion3 {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}
