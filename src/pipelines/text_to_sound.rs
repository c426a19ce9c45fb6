//! Recipe of text to sound: latent diffusion of mel spectrograms with classifier-free guidance, and a vocoder.

use std::sync::Arc;

use super::{
    Activation, Compute, DenoiseRow, Depth, Frame, LatentDiffusion, NetworkError, Networks, PipelineError, Prepared,
    PromptRole, TextEmbedding,
    calls::{DECODING, Decode, DenoiseCall, EncodeText, Vocode},
};
use crate::{
    audio::Waveform,
    diffusion::{Denoise, Error, Latents, Noise, Schedule, guide, sample},
    generation::{Phase, SeedMode, Sound},
    models::{
        adapters::AdapterSet,
        latent_diffusion::SoundSpec,
        text_encoders::{LearnedTokens, Tokens},
    },
};

/// Makes the generation's `n` sounds (Liu et al. 2023, arXiv:2301.12503). For the same seed, samples differ by at most
/// 1e-3 of the largest one from those of diffusers' `AudioLDMPipeline`.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the model makes no sounds.
pub async fn text_to_sound(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let sound = prepared.sound()?;
    let networks = LatentDiffusion::of(&prepared.model)?;
    let spec = networks.spec();
    let of_sound = spec.sound.ok_or_else(|| NetworkError::missing("vocoder"))?;
    let schedule = Schedule::new(&prepared.scheduler, sound.steps as usize);
    let schedule = schedule.map_err(|error| PipelineError::Sampler(error.to_string()))?;
    let scale = spec.vae_scale_factor.max(1);
    let [h, w] = [of_sound.frames(sound.seconds, scale), of_sound.frequencies].map(|side| side / scale);

    let branches = encode_prompts(compute, networks, sound).await?;

    let mut noise = noise_of(sound);
    let x = noise.draw([sound.n as usize, spec.latent_channels, h, w]).scale(schedule.init_noise_sigma()); // (n, C, h, w)
    let guided = Guided { compute, branches, scale: sound.guidance_scale };
    let latents = sample(&guided, &schedule, sound.eta, x, &mut noise).await?;

    decode(compute, networks, &latents, of_sound, sound).await
}

/// The embeddings of the prompts: [negative prompt, prompt], or without guidance only that of the prompt.
async fn encode_prompts(
    compute: &impl Compute,
    networks: &dyn Networks,
    sound: &Sound,
) -> Result<Vec<TextEmbedding>, PipelineError> {
    let tokens = |text: &str, is_negative| -> Tokens {
        let role = PromptRole { is_negative, picture: None };
        networks.tokenize_as(role, &[text], None, &LearnedTokens::default())
    };
    let negative = sound.is_guided().then(|| tokens(&sound.negative_prompt, true));
    let rows = negative.into_iter().chain([tokens(&sound.prompt, false)]).collect();
    compute.call(Phase::Encoding, EncodeText { clip_skip: 0 }, rows).await
}

fn noise_of(sound: &Sound) -> Noise {
    match sound.seed_mode {
        SeedMode::Batch => Noise::batch(sound.seed),
        SeedMode::PerImage => Noise::per_image(&(0..sound.n).map(|i| sound.seed_of(i)).collect::<Vec<_>>()),
    }
}

/// Decodes latents (n, C, h, w) to spectrograms, and turns these into waveforms.
async fn decode(
    compute: &impl Compute,
    networks: &dyn Networks,
    latents: &Latents,
    of_sound: SoundSpec,
    sound: &Sound,
) -> Result<Vec<Frame>, PipelineError> {
    let [n, c, h, w] = latents.shape();
    let scale = networks.spec().vae_scale_factor;
    let shares = networks.decode_stages([c, h, w]);
    let mut frames = Vec::with_capacity(n);
    // As for pictures, a limit of latent pixels says how many sounds are decoded at the same time.
    for sounds in (0..n).collect::<Vec<_>>().chunks((DECODING / (h * w).max(1)).max(1)) {
        let latents = sounds.iter().map(|row| Activation::of_latents(latents.row(*row).to_vec(), [c, h, w]));
        let mut rows = latents.collect::<Result<Vec<_>, _>>()?;
        for (stage, share) in shares.iter().copied().enumerate() {
            let is_last = stage + 1 == shares.len();
            rows = compute.call(Phase::Decoding, Decode { shape: [c, h, w], stage, is_last, share }, rows).await?;
        }
        let waveforms = compute.call(Phase::Decoding, Vocode { size: [h * scale, w * scale] }, rows).await?;
        frames.extend(waveforms.into_iter().map(|mut samples| {
            samples.truncate(of_sound.samples(sound.seconds));
            Frame::Sound(Waveform { sample_rate: of_sound.sample_rate as u32, channels: 1, samples })
        }));
    }
    Ok(frames)
}

/// A [`Denoise`] that calls the denoiser for the negative prompt and the prompt, and combines the predictions.
struct Guided<'a, C> {
    compute: &'a C,
    /// [negative prompt, prompt], or only the prompt.
    branches: Vec<TextEmbedding>,
    scale: f64,
}

impl<C: Compute> Denoise for Guided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let [b, c, h, w] = x.shape();
        let row = |text: &TextEmbedding, i: usize| DenoiseRow {
            sample: x.row(i).to_vec(),
            t: t as f32,
            context: text.clone(),
            time_ids: Arc::from([]),
            class: None,
            guidance: None,
            controls: Vec::new(),
            adapters: AdapterSet::default(),
            skipped: Arc::from([]),
            references: Arc::from([]),
            features: None,
        };
        let rows = self.branches.iter().flat_map(|text| (0..b).map(move |i| row(text, i))).collect();
        let context = self.branches.first().map_or([0; 2], TextEmbedding::dims);
        let call = DenoiseCall { shape: [c, h, w], context, depth: Depth::Full, channels: c, references: 0 };
        let answers = self.compute.call(Phase::Denoising, call, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let predictions = answers.chunks(b.max(1)).map(|rows| {
            Latents::new([b, c, h, w], rows.iter().flat_map(|row| row.prediction.iter().copied()).collect())
        });
        match &predictions.collect::<Result<Vec<Latents>, Error>>()?[..] {
            [uncond, cond] => Ok(guide(uncond, cond, self.scale, 0.0)),
            [only] => Ok(only.clone()),
            others => {
                Err(Error::Denoiser(format!("{} answers to {} prompts", others.len(), self.branches.len()).into()))
            }
        }
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.compute.stepped(step, steps, denoised);
    }
}
