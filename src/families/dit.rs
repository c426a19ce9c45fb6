//! Diffusion transformers, which draw pictures of a class (Peebles and Xie 2023, arXiv:2212.09748; diffusers'
//! `DiTPipeline`).

mod networks;

use std::sync::Arc;

use serde_json::Value;

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe, SamplingDemand,
    card::{self, Defaults},
    extras::{Extras, latent_rgb},
    plan::calls,
};
use crate::{
    device::Device,
    generation::{Decoder, Job, ModelCard, Task, Work},
    models::{demand::Demand, latent_diffusion::Part},
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, class_guided},
    weights::{LoadError, ModelFolder},
};
use networks::{DiTNetworks, Sizes};

/// The family of class-conditional diffusion transformers.
pub struct Dit;

const PARTS: [(&str, &str); 2] = [("transformer", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")];

impl Family for Dit {
    fn name(&self) -> &'static str {
        "dit"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["DiTPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let spec = sizes.spec();
        let side = spec.size_multiple as u32;
        // The steps and the guidance scale are the defaults of diffusers' `DiTPipeline`.
        let defaults = Defaults { width: side, height: side, steps: 50, guidance_scale: 4.0 };
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let card = ModelCard {
            min_side_pixels: side,
            size_multiple: side,
            latents: (spec.latent_channels, spec.vae_scale_factor),
            tasks: vec![Task::ClassConditional],
            takes_prompt: false,
            max_side_pixels: Some(side),
            classes: class_names(&index, spec.classes),
            decoders: vec![Decoder::Full],
            ..base
        };
        notes.extend(DiTNetworks::check(folder, &sizes)?);
        let size = ModelSize::float32(card::size(folder, &PARTS)?);
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = DiTNetworks::load(folder, device)?;
        let latent_rgb = Some(latent_rgb(folder, &networks)?);
        Ok(Box::new(LatentDiffusion { networks: Box::new(networks), latent_rgb }))
    }
}

impl Recipe for Dit {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        class_guided(compute, prepared).await
    }
}

/// The name of each class from `id2label`, or an empty string for a class without a name.
fn class_names(index: &ModelIndex, classes: usize) -> Arc<[String]> {
    let labels = index.keys.get("id2label").and_then(Value::as_object);
    let name = |class: usize| labels?.get(&class.to_string())?.as_str().map(str::to_owned);
    (0..classes).map(|class| name(class).unwrap_or_default()).collect()
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Work::Draw(draw) = &job.work else { return Plan::default() };
        let side = self.transformer.sample_size;
        let call = self.transformer.demand();
        let decodes = self.vae.tiles(side, side);
        let decodes = decodes.iter().map(|tile| {
            let (h, w) = tile.size();
            self.demand(Part::Decode { size: [h, w] })
        });
        let sampling = SamplingDemand {
            state: self.transformer.in_channels * side * side,
            branches: if draw.guidance_scale > 1.0 { 2 } else { 1 },
            calls: calls(draw, card),
            call,
            before: Demand::default(),
            after: decodes.fold(Demand::default(), Demand::then),
        };
        Plan::of(draw, sampling)
    }
}
