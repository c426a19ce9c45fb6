//! FLUX.1 dev and schnell, and models with the same networks (Black Forest Labs 2024; rectified flow transformers:
//! Esser et al. 2024, arXiv:2403.03206).

mod description;
mod networks;
mod plan;
mod sizes;
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
use description::{Configurations, PARTS};
use networks::FluxNetworks;

/// The family with a transformer, a CLIP text encoder for the vector of the prompt, and a T5 text encoder.
pub struct Flux;

/// Defaults of diffusers' `FluxPipeline`, for models that take the guidance scale, such as FLUX.1 dev.
const DEV: Guidance = Guidance { steps: 28, guidance_scale: 3.5, inpaint_guidance_scale: 3.5 };

/// Defaults for models that do not take the guidance scale, such as FLUX.1 schnell.
const SCHNELL: Guidance = Guidance { steps: 4, guidance_scale: 0.0, inpaint_guidance_scale: 0.0 };

impl Family for Flux {
    fn name(&self) -> &'static str {
        "flux"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let Configurations { sizes, mut notes, scheduler_config, .. } = Configurations::read(folder)?;
        let spec = sizes.spec();
        let is_distilled = !spec.guidance_embedding;
        let guidance = if is_distilled { SCHNELL } else { DEV };
        let length = sizes.sequence_length() as u32;
        let card = ModelCard {
            sequence_lengths: Some((length, length)),
            inpaint_guidance_scale: None, // the same as without a mask
            true_guidance: true,
            // Weights of words would change the states of CLIP, but the transformer takes the states of T5.
            weighted_prompts: false,
            no_guidance_scale: is_distilled,
            transformer_blocks: sizes.transformer.num_layers + sizes.transformer.num_single_layers,
            ..card(name, &extras, &spec, (guidance, true), scheduler_config)?
        };
        notes.extend(folder.notes());
        notes.extend(FluxNetworks::check(folder, &sizes)?);
        // The precisions are the same as in `FluxNetworks::load`.
        let upcasts_vae = sizes.vae_precision(Precision::F16) == Precision::F32;
        let (float32, adaptable): (Vec<_>, Vec<_>) =
            PARTS.into_iter().partition(|(part, _)| *part == "vae" && upcasts_vae);
        let size = ModelSize { adaptable: size_as_stored(folder, &adaptable)?, float32: size(folder, &float32)? };
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = FluxNetworks::load(folder, device)?;
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

impl Recipe for Flux {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}
