//! Z-Image and Z-Image-Turbo (Cai et al. 2025, arXiv:2511.22699; diffusers' `ZImagePipeline` and its variants for
//! pictures and masks).

mod networks;

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
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, text_guided},
    weights::{LoadError, ModelFolder, WeightSize, lora::Modules},
};
use networks::{SEQUENCE, Sizes, TEXT, TRANSFORMER, VAE, ZImageNetworks};

/// The family with one transformer for the tokens of both the picture and the prompt, and Qwen3 as the text encoder.
pub struct ZImage;

impl Family for ZImage {
    fn name(&self) -> &'static str {
        "z_image"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let spec = sizes.spec();
        let multiple = spec.size_multiple as u32;
        // The defaults of diffusers' `ZImagePipeline`.
        let defaults = Defaults { width: 1024, height: 1024, steps: 50, guidance_scale: 5.0 };
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let card = ModelCard {
            takes_prompt: true,
            min_side_pixels: extras.min_size.unwrap_or(64).next_multiple_of(multiple),
            max_side_pixels: Some(sizes.longest_side()),
            size_multiple: multiple,
            context_width: spec.context_width,
            context_length: spec.context_length,
            latents: (spec.latent_channels, spec.vae_scale_factor),
            sequence_lengths: Some((SEQUENCE as u32, SEQUENCE as u32)),
            flow: spec.flow,
            guidance_offset: spec.guidance_offset,
            limits_guidance: true,
            tasks: vec![Task::TextToImage, Task::ImageToImage, Task::Inpaint],
            decoders: vec![Decoder::Full],
            ..base
        };
        notes.extend(ZImageNetworks::check(folder, &sizes)?);
        let is_left = |name: &str| Qwen3Encoder::leaves(name, sizes.depth());
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
        Ok(Sizes::read(folder)?.modules())
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = ZImageNetworks::load(folder, device)?;
        let latent_rgb = Some(latent_rgb(folder, &networks)?);
        Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
    }
}

impl Recipe for ZImage {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let places = draw.height as usize / self.vae.scale() * (draw.width as usize / self.vae.scale());
        let sizes = (self.tokens(draw.max_sequence_length), places * self.transformer.in_channels);
        let encodes: Vec<_> = draw.source.iter().map(|_| [draw.height as usize, draw.width as usize]).collect();
        latent_plan::plan(job, card, sizes, &encodes, |part| self.demand(part), |[h, w]| self.vae.tiles(h, w))
    }
}
