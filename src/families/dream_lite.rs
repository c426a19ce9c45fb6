//! DreamLite by ByteDance, base and mobile (diffusers' `DreamLitePipeline` and `DreamLiteMobilePipeline`): draws from a
//! prompt, and changes a picture by an instruction.

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
    models::{autoencoder_kl::Tiles, prompt_tokenizers::PromptTokenizers},
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, text_guided},
    weights::{LoadError, ModelFolder},
};
use networks::{DreamLiteNetworks, TEXT, UNET, VAE};
use sizes::{MOBILE, SEQUENCE, Sizes};

/// The family of a small U-Net with a tiny autoencoder, and the language model Qwen3-VL as the text encoder.
pub struct DreamLite;

impl Family for DreamLite {
    fn name(&self) -> &'static str {
        "dream_lite"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["DreamLitePipeline", MOBILE]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let spec = sizes.spec();
        let multiple = spec.size_multiple as u32;
        // The defaults of diffusers' pipelines. The mobile model was distilled for few steps without guidance.
        let (steps, guidance_scale) = if sizes.is_mobile { (4, 1.0) } else { (30, 7.5) };
        let defaults = Defaults { width: 1024, height: 1024, steps, guidance_scale };
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let card = ModelCard {
            takes_prompt: true,
            min_side_pixels: extras.min_size.unwrap_or(64).next_multiple_of(multiple),
            size_multiple: multiple,
            context_width: spec.context_width,
            context_length: SEQUENCE.saturating_sub(sizes.tokenizer(folder)?.around()),
            text_encoders: spec.text_encoders,
            latents: (spec.latent_channels, spec.vae_scale_factor),
            flow: spec.flow,
            is_distilled: spec.is_distilled,
            no_guidance_scale: sizes.is_mobile,
            always_guided: spec.always_guided,
            image_guidance_scale: (!sizes.is_mobile).then_some(1.0),
            edits_beside: true,
            tasks: vec![Task::TextToImage, Task::Edit],
            decoders: vec![Decoder::Full],
            ..base
        };
        notes.extend(DreamLiteNetworks::check(folder, &sizes)?);
        let adaptable = card::size_as_stored(folder, &[TEXT])?.and(card::size(folder, &[UNET])?);
        let size = ModelSize { adaptable, float32: card::size(folder, &[VAE])? };
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        Sizes::read(folder)?.prompt_tokenizers(folder).map(Some)
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = DreamLiteNetworks::load(folder, device)?;
        let latent_rgb = Some(latent_rgb(folder, &networks)?);
        Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
    }
}

impl Recipe for DreamLite {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let size = [draw.height as usize, draw.width as usize];
        let [h, w] = size.map(|side| side / self.vae.scale());
        let edits = draw.source.is_some();
        let sizes = (self.tokens(edits), h * w * self.unet.in_channels);
        let pictures: &[[usize; 2]] = if edits { &[size] } else { &[] };
        latent_plan::plan(job, card, sizes, pictures, |part| self.demand(part), |[h, w]| Tiles::whole(h, w))
    }
}
