//! AudioLDM: latent diffusion of mel spectrograms (Liu et al. 2023, arXiv:2301.12503; diffusers' `AudioLDMPipeline`).

mod networks;
mod sizes;

use super::{
    CardError, ControlDemand, Description, Family, ModelIndex, ModelSize, Outline, Plan, Recipe, SamplingDemand,
    card::{self, Defaults},
    extras::Extras,
    plan::calls_of,
};
use crate::{
    device::Device,
    generation::{Decoder, Job, ModelCard, SoundCard, Task},
    models::{
        demand::Demand,
        latent_diffusion::Part,
        prompt_tokenizers::{PromptTokenizer, PromptTokenizers},
    },
    pipelines::{Compute, Frame, LatentDiffusion, Loaded, PipelineError, Prepared, text_to_sound},
    weights::{LoadError, ModelFolder},
};
use networks::{AudioLdmNetworks, tokenizer};
use sizes::Sizes;

/// The family of AudioLDM.
pub struct AudioLdm;

/// The parts with weights, and the stems of their files.
const PARTS: [(&str, &str); 4] = [
    ("text_encoder", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
    ("vocoder", "model"),
];

impl Family for AudioLdm {
    fn name(&self) -> &'static str {
        "audio_ldm"
    }

    fn classes(&self) -> &'static [&'static str] {
        &["AudioLDMPipeline"]
    }

    fn describe(&self, name: &str, folder: &ModelFolder) -> Result<Description, CardError> {
        let extras = Extras::read(folder)?;
        let sizes = Sizes::read(folder)?;
        let index = ModelIndex::of(folder)?;
        let mut notes = folder.notes();
        let scheduler_config = card::scheduler(folder, &index, &mut notes)?;
        // The steps and the guidance scale are the defaults of diffusers' `AudioLDMPipeline`.
        let defaults = Defaults { width: 0, height: 0, steps: 10, guidance_scale: 2.5 };
        let base = card::base(name, &extras, scheduler_config, defaults)?;
        let sound = sizes.sound();
        let card = ModelCard {
            default_width: 0,
            default_height: 0,
            latents: (sizes.unet.in_channels, sizes.vae.scale()),
            tasks: vec![Task::TextToAudio],
            takes_prompt: true,
            text_encoders: 1,
            decoders: vec![Decoder::Full],
            sound: Some(SoundCard {
                sample_rate: sound.sample_rate as u32,
                channels: 1,
                default_seconds: sizes.default_seconds(),
                least_seconds: sizes.least_seconds(),
                log_snr: None,
            }),
            ..base
        };
        notes.extend(AudioLdmNetworks::check(folder, &sizes)?);
        let size = ModelSize::float32(card::size(folder, &PARTS)?);
        Ok(Description { card, size, notes, outline: Box::new(sizes) })
    }

    fn load(&self, folder: &ModelFolder, device: &Device) -> Result<Box<dyn Loaded>, LoadError> {
        let networks = Box::new(AudioLdmNetworks::load(folder, device)?);
        Ok(Box::new(LatentDiffusion { networks, latent_rgb: None }))
    }

    fn tokenizers(&self, folder: &ModelFolder) -> Result<Option<PromptTokenizers>, LoadError> {
        let sizes = Sizes::read(folder)?;
        let (tokenizer, negative_length) = (tokenizer(folder, &sizes)?, sizes.text_encoder.projection_dim);
        Ok(Some(PromptTokenizers(vec![PromptTokenizer::Roberta { tokenizer, negative_length }])))
    }
}

impl Recipe for AudioLdm {
    async fn draw(&self, compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
        text_to_sound(compute, prepared).await
    }
}

impl Outline for Sizes {
    fn plan(&self, job: &Job, card: &ModelCard, _controls: &ControlDemand<'_>) -> Plan {
        let Some(sound) = job.work.sound() else { return Plan::default() };
        let [h, w] = self.latents(sound.seconds);
        let frames = h * self.vae.scale();
        let branches = if sound.is_guided() { 2 } else { 1 };
        let text = self.demand(Part::Text { sees: false });
        let decode = self.demand(Part::Decode { size: [h, w] });
        let sampling = SamplingDemand {
            state: self.unet.in_channels * h * w,
            branches,
            calls: calls_of(&sound.scheduler, sound.steps, card),
            call: self.demand(Part::Denoise { size: [h, w], tokens: 1, shallow: false, adapted: false }),
            before: Demand { work: branches as f64 * text.work, ..text },
            after: decode.then(self.vocoder.demand(frames)),
        };
        // Memory holds the spectrogram and the samples between the networks, and at the end the samples and the file.
        let numbers = frames * self.vocoder.model_in_dim + 2 * self.vocoder.samples(frames);
        Plan::of_sound(sound, sampling, numbers)
    }
}
