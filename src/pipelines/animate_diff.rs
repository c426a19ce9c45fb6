//! Recipe of films by a model of pictures with a motion adapter: all frames are denoised together, then decoded one by
//! one.

use std::{cell::RefCell, sync::Arc};

use super::{
    Clip, Compute, Frame, LatentDiffusion, Networks, PipelineError, Prepared, TextEmbedding,
    calls::{DECODING, Decode, DenoiseFrames, EncodeText, FramesRow},
    image_to_video::{no_answer, noise_of},
    latents::decode_tiny,
};
use crate::{
    diffusion::{Denoise, Error, Latents, Schedule, guide, sample},
    generation::{Film, Phase},
    models::{MotionAdapter, adapters::AdapterSet},
};

/// Makes the generation's `n` films (Guo et al. 2023, arXiv:2307.04725). For the same seed, color values (0 to 255)
/// differ by at most 2 from diffusers' `AnimateDiffPipeline`.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the job is not for this model.
pub async fn animate_diff(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let film = prepared.film()?;
    let motion =
        prepared.auxiliary.motion.clone().ok_or(PipelineError::OtherWork("make films with a motion adapter"))?;
    let networks = LatentDiffusion::of(&prepared.model)?;
    let spec = networks.spec();
    let schedule = Schedule::new(&prepared.scheduler, film.steps as usize);
    let schedule = schedule.map_err(|error| PipelineError::Sampler(error.to_string()))?;
    let [h, w] = [film.height, film.width].map(|side| side as usize / spec.vae_scale_factor.max(1));
    let shape = [spec.latent_channels, film.frames as usize, h, w];

    let branches = encode_prompts(compute, prepared, networks, film).await?;
    let mut noise = noise_of(film);
    let [c, f, ..] = shape;
    let x = noise.draw([film.n as usize, c * f, h, w]).scale(schedule.init_noise_sigma()); // (n, C · F, h, w)
    let adapters = prepared.auxiliary.adapters.clone();
    let unseen = RefCell::default();
    let guided = Guided { compute, scale: film.guidance_scale, shape, branches, adapters, motion, unseen };
    let latents = sample(&guided, &schedule, 0.0, x, &mut noise).await?;

    decode(compute, networks, &latents, shape, film).await
}

/// The embeddings of the prompts: [negative prompt, prompt], or, without guidance, only the embedding of the prompt.
async fn encode_prompts(
    compute: &impl Compute,
    prepared: &Prepared,
    networks: &dyn Networks,
    film: &Film,
) -> Result<Vec<TextEmbedding>, PipelineError> {
    let tokens = |text: &str| {
        let mut tokens = networks.tokenize(&[text], None, &prepared.auxiliary.learned);
        tokens.adapters = prepared.auxiliary.adapters.clone();
        tokens
    };
    let negative = film.is_guided().then(|| tokens(&film.negative_prompt));
    let rows: Vec<_> = negative.into_iter().chain([tokens(&film.prompt)]).collect();
    let wanted = rows.len();
    let embeddings = compute.call(Phase::Encoding, EncodeText { clip_skip: 0 }, rows).await?;
    if embeddings.len() == wanted { Ok(embeddings) } else { Err(no_answer("text encoder")) }
}

/// A [`Denoise`] that calls the denoiser for the negative prompt and the prompt, and combines the predictions.
struct Guided<'a, C> {
    compute: &'a C,
    /// The guidance scale.
    scale: f64,
    /// (C, F, h, w)
    shape: [usize; 4],
    /// [negative prompt, prompt], or only the prompt.
    branches: Vec<TextEmbedding>,
    adapters: AdapterSet,
    motion: Arc<MotionAdapter>,
    /// A step whose preview has not been decoded yet, with the middle frame of each film, (n, C, h, w).
    unseen: RefCell<Option<(usize, Latents)>>,
}

impl<C: Compute> Denoise for Guided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let unseen = self.unseen.borrow_mut().take();
        if let Some((step, middle)) = unseen {
            let pictures = decode_tiny(self.compute, Phase::Denoising, &middle).await;
            self.compute.show(step, pictures.map_err(|error| Error::Denoiser(Box::new(error)))?);
        }
        let n = x.shape()[0];
        let context = self.branches.first().map_or([0, 0], TextEmbedding::dims);
        let row = |context: &TextEmbedding, i| FramesRow {
            latents: x.row(i).to_vec(),
            t: t as f32,
            context: context.clone(),
            adapters: self.adapters.clone(),
            motion: self.motion.clone(),
        };
        let rows = self.branches.iter().flat_map(|context| (0..n).map(move |i| row(context, i))).collect();
        let answers = self.compute.call(Phase::Denoising, DenoiseFrames { shape: self.shape, context }, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let predictions = answers.chunks(n.max(1)).map(|rows| Latents::new(x.shape(), rows.concat()));
        match &predictions.collect::<Result<Vec<Latents>, Error>>()?[..] {
            [uncond, cond] => Ok(guide(uncond, cond, self.scale, 0.0)),
            [only] => Ok(only.clone()),
            others => {
                Err(Error::Denoiser(format!("{} answers to {} prompts", others.len(), self.branches.len()).into()))
            }
        }
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        let Ok(middle) = middle_frames(denoised, self.shape) else { return };
        self.compute.stepped(step, steps, &middle);
        if self.compute.wants_decoded_preview(step, steps) {
            *self.unseen.borrow_mut() = Some((step, middle));
        }
    }
}

/// The latents of frame ⌊F / 2⌋ of each film, (n, C · F, h, w) → (n, C, h, w). A preview shows this frame.
fn middle_frames(latents: &Latents, [c, f, h, w]: [usize; 4]) -> Result<Latents, Error> {
    let ([n, ..], place) = (latents.shape(), h * w);
    let plane = |i: usize, channel: usize| &latents.row(i)[(channel * f + f / 2) * place..][..place];
    let values = (0..n).flat_map(|i| (0..c).flat_map(move |channel| plane(i, channel))).copied().collect();
    Latents::new([n, c, h, w], values)
}

/// Decodes latents (n, C · F, h, w) to films. Each frame is a picture of its own.
async fn decode(
    compute: &impl Compute,
    networks: &dyn Networks,
    latents: &Latents,
    [c, f, h, w]: [usize; 4],
    film: &Film,
) -> Result<Vec<Frame>, PipelineError> {
    let [n, ..] = latents.shape();
    let place = h * w;
    let mut films = Vec::with_capacity(n);
    for i in 0..n {
        let of_film = latents.row(i);
        let frame = |frame: usize| (0..c).flat_map(move |channel| &of_film[(channel * f + frame) * place..][..place]);
        let frames = Latents::new([f, c, h, w], (0..f).flat_map(frame).copied().collect())?;
        let run = async |call: Decode, rows| compute.call(Phase::Decoding, call, rows).await;
        let pictures = super::decode(networks, &frames, DECODING, run).await?;
        let frames = pictures.iter().flat_map(Frame::pictures).cloned().collect();
        films.push(Frame::Clip(Clip { frames, fps: film.fps }));
    }
    Ok(films)
}
