//! PixArt: small diffusion transformers with a large text encoder (diffusers' `PixArtAlphaPipeline` and
//! `PixArtSigmaPipeline`; Chen et al. 2023, arXiv:2310.00426, and 2024, arXiv:2403.04692).

mod networks;
mod sizes;

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe, SamplingDemand,
    card::{self, Defaults},
    extras::{Extras, latent_rgb},
    plan::calls,
};
use crate::{
    device::Device,
    generation::{Decoder, Job, ModelCard, Task, Work},
    models::{
        demand::Demand,
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
    },
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, text_guided},
    weights::{LoadError, ModelFolder},
};
use networks::PixArtNetworks;
use sizes::Sizes;

/// The family of PixArt's transformers.
pub struct Pixart;

/// The parts in float32. The text encoder takes the precision of the device.
const PARTS: [(&str, &str); 2] = [("transformer", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")];

impl Family for Pixart {
    fn name(&self) -> &'static str {
        "pixart"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["PixArtAlphaPipeline", "PixArtSigmaPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let spec = sizes.spec();
        let side = (spec.sample_size.0 * spec.vae_scale_factor) as u32;
        // The steps and the guidance scale are the defaults of diffusers' pipelines.
        let defaults = Defaults { width: side, height: side, steps: 20, guidance_scale: 4.5 };
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &ModelIndex::of(folder)?, &mut notes)?;
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let multiple = spec.size_multiple as u32;
        let card = ModelCard {
            takes_prompt: true,
            min_side_pixels: extras.min_size.unwrap_or(64).max(multiple),
            size_multiple: multiple,
            context_width: spec.context_width,
            context_length: spec.context_length,
            sequence_lengths: Some((spec.context_length as u32, sizes::LONGEST as u32)),
            text_encoders: spec.text_encoders,
            latents: (spec.latent_channels, spec.vae_scale_factor),
            tasks: vec![Task::TextToImage],
            decoders: vec![Decoder::Full],
            ..base
        };
        notes.extend(PixArtNetworks::check(folder, &sizes)?);
        drop(sizes::tokenizer(folder, &sizes)?);
        let text = card::size_as_stored(folder, &[("text_encoder", "model")])?;
        let size = ModelSize { adaptable: text, float32: card::size(folder, &PARTS)? };
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = PixArtNetworks::load(folder, device)?;
        let latent_rgb = Some(latent_rgb(folder, &networks)?);
        Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        let tokenizer = sizes::tokenizer(folder, &Sizes::read(folder)?)?;
        Ok(Some(PromptTokenizers(vec![PromptTokenizer::T5(tokenizer)])))
    }
}

impl Recipe for Pixart {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_guided(compute, prepared).await
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let scale = card.latents.1.max(1);
        let [h, w] = [draw.height, draw.width].map(|side| side as usize / scale);
        let tokens = draw.max_sequence_length.map_or(self.context_length, |length| length as usize);
        let text = self.text_encoder.demand(tokens);
        let decodes = self.vae.tiles(h, w);
        let decodes = decodes.iter().map(|tile| {
            let (h, w) = tile.size();
            self.vae.decode_demand(h, w)
        });
        let branches = if draw.guidance_scale > 1.0 { 2 } else { 1 };
        let sampling = SamplingDemand {
            state: card.latents.0 * h * w,
            branches,
            calls: calls(draw, card),
            call: self.transformer.demand([h, w], tokens),
            before: Demand { work: branches as f64 * text.work, ..text },
            after: decodes.fold(Demand::default(), Demand::then),
        };
        Plan::of(draw, sampling)
    }
}
