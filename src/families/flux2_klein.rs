//! FLUX.2 Klein by Black Forest Labs (diffusers' `Flux2KleinPipeline` and its variant for masks): draws from a prompt,
//! and changes reference pictures by an instruction.

mod networks;
mod sizes;

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe,
    card::{self, Defaults},
    extras::{Extras, latent_rgb},
    latent_plan,
};
use crate::{
    device::Device,
    generation::{Decoder, Job, ModelCard, Task, Work},
    models::{
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
        qwen3_encoder::Qwen3Encoder,
    },
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, reference_size, text_guided},
    weights::{LoadError, ModelFolder, WeightSize, lora::Modules},
};
use networks::{Flux2KleinNetworks, TEXT, TRANSFORMER, VAE};
use sizes::Sizes;

/// The family of FLUX.2's small transformers, with Qwen3 as the text encoder.
pub struct Flux2Klein;

impl Family for Flux2Klein {
    fn name(&self) -> &'static str {
        "flux2_klein"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["Flux2KleinPipeline", "Flux2KleinInpaintPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let spec = sizes.spec();
        let multiple = spec.size_multiple as u32;
        // The defaults of diffusers' pipeline, or the values that distilled models were made for.
        let (steps, guidance_scale) = if sizes.is_distilled { (4, 1.0) } else { (50, 4.0) };
        let defaults = Defaults { width: 1024, height: 1024, steps, guidance_scale };
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let card = ModelCard {
            takes_prompt: true,
            min_side_pixels: extras.min_size.unwrap_or(64).next_multiple_of(multiple),
            size_multiple: multiple,
            context_width: spec.context_width,
            context_length: spec.context_length,
            text_encoders: spec.text_encoders,
            sequence_lengths: Some((Sizes::SEQUENCE as u32, Sizes::SEQUENCE as u32)),
            latents: (spec.latent_channels, spec.vae_scale_factor),
            flow: spec.flow,
            is_distilled: spec.is_distilled,
            tasks: vec![Task::TextToImage, Task::Edit, Task::Inpaint],
            decoders: vec![Decoder::Full],
            ..base
        };
        notes.extend(Flux2KleinNetworks::check(folder, &sizes)?);
        let is_left = |name: &str| Qwen3Encoder::leaves(name, Sizes::DEPTH);
        let text = WeightSize::read_as_stored_without(folder, TEXT.0, TEXT.1, is_left)?;
        let adaptable = card::size_as_stored(folder, &[TRANSFORMER])?.and(text);
        let size = ModelSize { adaptable, float32: card::size(folder, &[VAE])? };
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        let tokenizer = Sizes::read(folder)?.tokenizer(folder)?;
        Ok(Some(PromptTokenizers(vec![PromptTokenizer::Qwen(tokenizer)])))
    }

    fn modules(&self, folder: &ModelFolder) -> Result<Modules, LoadError> {
        Ok(networks::modules(&Sizes::read(folder)?))
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = Flux2KleinNetworks::load(folder, device)?;
        let latent_rgb = Some(latent_rgb(folder, &networks)?);
        Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
    }
}

impl Recipe for Flux2Klein {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let scale = self.vae.scale();
        let places = |width: u32, height: u32| height as usize / scale * (width as usize / scale);
        // With a mask, the network sees the request's picture in the size that is drawn.
        let pictures: Vec<[usize; 2]> = match &draw.source {
            Some(source) if source.mask.is_none() => {
                source.references().map(|size| reference_size(size, card.size_multiple)).collect()
            }
            Some(_) => vec![[draw.height as usize, draw.width as usize]],
            None => Vec::new(),
        };
        let references: usize = pictures.iter().map(|[height, width]| height / scale * (width / scale)).sum();
        let tokens = draw.max_sequence_length.map_or(Sizes::SEQUENCE, |length| length as usize) + references;
        let state = places(draw.width, draw.height) * self.transformer.in_channels;
        latent_plan::plan(
            job,
            card,
            (tokens, state),
            &pictures,
            |part| self.demand(part),
            |[h, w]| self.vae.tiles(h, w),
        )
    }
}
