//! Stable Audio 3: rectified flow of the latents of stereo sounds (arXiv:2605.17991; diffusers'
//! `StableAudio3Pipeline`).

mod networks;
mod sizes;

use serde_json::Value;

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe, SamplingDemand,
    card::{self, Defaults},
    extras::Extras,
    plan::calls_of_sound,
};
use crate::{
    device::Device,
    generation::{Decoder, Job, LogSnr, ModelCard, SoundCard, Task},
    models::{
        AutoencoderSame,
        demand::Demand,
        latent_diffusion::Part,
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
    },
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, text_to_waveform},
    weights::{LoadError, ModelFolder, WeightSize},
};
use networks::{StableAudio3Networks, WEIGHTS};
use sizes::Sizes;

/// The family of Stable Audio 3.
pub struct StableAudio3;

/// The parts with weights that are read whole, and the stems of their files.
const PARTS: [(&str, &str); 3] = [("text_encoder", "model"), ("transformer", WEIGHTS), ("duration_embedder", WEIGHTS)];

/// The range of the noise levels in diffusers' `StableAudio3Pipeline`.
const LOG_SNR: LogSnr = LogSnr { min: -6.2, max: 2.0 };
/// The length of a sound in diffusers' `StableAudio3Pipeline`.
const SECONDS: f64 = 10.0;

impl Family for StableAudio3 {
    fn name(&self) -> &'static str {
        "stable_audio_3"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["StableAudio3Pipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        // As in diffusers: models that were distilled to few steps add new noise in each step.
        let is_distilled = scheduler_config.get("stochastic_sampling").and_then(Value::as_bool) == Some(true);
        let steps = if is_distilled { 8 } else { 100 };
        let defaults = Defaults { width: 0, height: 0, steps, guidance_scale: 1.0 };
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let waveform = sizes.waveform();
        let card = ModelCard {
            default_width: 0,
            default_height: 0,
            latents: (sizes.transformer.io_channels, 1),
            tasks: vec![Task::TextToAudio],
            takes_prompt: true,
            text_encoders: 1,
            decoders: vec![Decoder::Full],
            own_scheduler_class_only: true,
            sound: Some(SoundCard {
                sample_rate: waveform.sample_rate as u32,
                channels: waveform.channels as u32,
                default_seconds: SECONDS.max(waveform.seconds_per_latent()),
                least_seconds: waveform.seconds_per_latent(),
                log_snr: Some(LOG_SNR),
            }),
            ..base
        };
        notes.extend(StableAudio3Networks::check(folder, &sizes)?);
        let decoder = WeightSize::read_without(folder, "vae", WEIGHTS, AutoencoderSame::leaves)?;
        let size = ModelSize::float32(card::size(folder, &PARTS)?.and(decoder));
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = Box::new(StableAudio3Networks::load(folder, device)?);
        Ok(Box::new(LatentDiffusion { networks, latent_rgb: None }))
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        let tokenizer = Sizes::read(folder)?.tokenizer(folder)?;
        Ok(Some(PromptTokenizers(vec![PromptTokenizer::Gemma(tokenizer)])))
    }
}

impl Recipe for StableAudio3 {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_to_waveform(compute, prepared).await
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Some(sound) = job.work.sound() else { return Plan::default() };
        let waveform = self.waveform();
        let length = waveform.latents(sound.padded_seconds());
        let branches = if sound.is_guided() { 2 } else { 1 };
        let (size, text) = ([length, 1], self.demand(Part::Text { sees: false }));
        let sampling = SamplingDemand {
            state: self.transformer.io_channels * length,
            branches,
            calls: calls_of_sound(sound, card),
            call: self.demand(Part::Denoise { size, tokens: Sizes::TOKENS, shallow: false, adapted: false }),
            before: Demand { work: branches as f64 * text.work, ..text },
            after: self.demand(Part::Decode { size }),
        };
        // At the end, the decoded samples and the samples of the file are in memory.
        let numbers = 2 * length * waveform.samples_per_latent * waveform.channels;
        Plan::of_sound(sound, sampling, numbers)
    }
}
