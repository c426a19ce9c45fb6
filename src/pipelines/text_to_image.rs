//! Text to image: latent diffusion with classifier-free guidance.

use std::cell::{Cell, RefCell};

use super::{Compute, DenoiseRow, Denoised, Networks, PipelineError, TextEmbedding, feature_cache::KeptFeatures};
use crate::{
    diffusion::{Denoise, Error, Latents, Noise, SchedulerConfig, guide, sample},
    generation::{Decoder, Generation, GuidanceInterval, SeedMode},
    imaging::RgbImage,
};

/// Draws the generation's `n` pictures, of `height` × `width` pixels (Rombach et al. 2022, arXiv:2112.10752; guidance:
/// Ho & Salimans 2022, arXiv:2207.12598). The same pictures as diffusers' `StableDiffusionPipeline` for the same seed.
pub async fn text_to_image(
    compute: &impl Compute,
    networks: &dyn Networks,
    scheduler: &SchedulerConfig,
    generation: &Generation,
) -> Result<Vec<RgbImage>, PipelineError> {
    let text = encode_prompts(compute, networks, generation).await?;

    let mut noise = match generation.seed_mode {
        SeedMode::Batch => Noise::batch(generation.seed),
        SeedMode::PerImage => Noise::per_image(&(0..generation.n).map(|i| generation.seed_of(i)).collect::<Vec<_>>()),
    };
    let spec = networks.spec();
    let side = |pixels: u32| pixels as usize / spec.vae_scale_factor;
    let shape = [generation.n as usize, spec.latent_channels, side(generation.height), side(generation.width)];
    let x = noise.draw(shape); // (n, C, h, w)

    let guided = Guided {
        compute,
        text,
        scale: generation.guidance_scale,
        rescale: generation.guidance_rescale,
        interval: generation.guidance_interval,
        done: Cell::new(0.0),
        features: RefCell::new(KeptFeatures::new(generation.feature_cache)),
    };
    let latents = sample(&guided, scheduler, generation.steps as usize, generation.eta, x, &mut noise).await?;

    match generation.decoder {
        Decoder::Full => compute.decode(&latents).await,
        Decoder::Tiny => compute.decode_tiny(&latents).await,
    }
}

/// The prompt's embedding, and before it the negative prompt's where guidance is on.
struct Conditioning {
    negative: Option<TextEmbedding>,
    positive: TextEmbedding,
}

async fn encode_prompts(
    compute: &impl Compute,
    networks: &dyn Networks,
    generation: &Generation,
) -> Result<Conditioning, PipelineError> {
    let encode = async |prompt: &str, clip_skip| {
        let embeddings = compute.text(vec![networks.tokenize(prompt)], clip_skip).await?;
        embeddings
            .into_iter()
            .next()
            .ok_or_else(|| PipelineError::Sampler("the text encoder gave no answer".to_owned()))
    };
    let positive = encode(&generation.prompt, generation.clip_skip).await?;
    // At a scale of 1 the formula gives the conditional prediction, and diffusers treats less than 1 alike. It skips no
    // layers for the negative prompt.
    let negative = match generation.guidance_scale > 1.0 {
        true => Some(encode(&generation.negative_prompt, 0).await?),
        false => None,
    };
    Ok(Conditioning { negative, positive })
}

/// The network as a sampler sees it: one prediction for each picture, guidance already applied where it is wanted.
struct Guided<'a, C> {
    compute: &'a C,
    text: Conditioning,
    scale: f64,
    rescale: f64,
    interval: GuidanceInterval,
    /// The share of the steps that the sampler has reported as done.
    done: Cell<f64>,
    features: RefCell<KeptFeatures>,
}

impl<C: Compute> Denoise for Guided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let [b, c, h, w] = x.shape();
        let rows_with = |context: &TextEmbedding| {
            let row =
                |i| DenoiseRow { sample: x.row(i).to_vec(), t: t as f32, context: context.clone(), features: None };
            (0..b).map(row).collect::<Vec<_>>()
        };
        let negative = self.text.negative.as_ref().filter(|_| self.interval.covers(self.done.get()));
        let mut rows = negative.map(rows_with).unwrap_or_default();
        rows.extend(rows_with(&self.text.positive));
        let (depth, starts) = self.features.borrow_mut().next(rows.len());
        rows.iter_mut().zip(starts).for_each(|(row, start)| row.features = start);
        let answers = self.compute.denoise([c, h, w], depth, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let (mut answers, kept): (Vec<_>, Vec<_>) =
            answers.into_iter().map(|Denoised { prediction, features }| (prediction, features)).unzip();
        self.features.borrow_mut().keep(kept.into_iter().flatten());

        let cond = answers.split_off(answers.len().saturating_sub(b));
        let cond = Latents::new([b, c, h, w], cond.concat())?;
        if negative.is_none() {
            return Ok(cond);
        }
        let uncond = Latents::new([b, c, h, w], answers.concat())?;
        Ok(guide(&uncond, &cond, self.scale, self.rescale))
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.done.set(step as f64 / steps as f64);
        self.compute.stepped(step, steps, denoised);
    }
}

impl From<Error> for PipelineError {
    fn from(error: Error) -> PipelineError {
        PipelineError::Sampler(error.to_string())
    }
}
