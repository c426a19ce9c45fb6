//! Recipe of films from a prompt, with or without a picture that they begin with: rectified flow of their latents.

use candle_core::Tensor;

use super::{
    Activation, Clip, Compute, Frame, NetworkError, PipelineError, Prepared, TextEmbedding, WanVideo, WanVideoSizes,
    beginning::Beginning,
    byte,
    calls::{DECODING, DenoiseFilm, EncodePrompt, FilmRow, FilmStage, FilmWay},
    image_to_video::{no_answer, noise_of},
};
use crate::{
    device::HOST,
    diffusion::{Denoise, Error, Latents, Schedule, guide, sample},
    generation::{Film, Phase},
    models::autoencoder_kl_wan::FilmState,
};

/// Makes the generation's `n` films (Wan Team 2025, arXiv:2503.20314). For the same seed, color values (0 to 255)
/// differ by at most 2 from diffusers' `WanPipeline` and `WanImageToVideoPipeline`.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the job is not for this model.
pub async fn text_to_video(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let film = prepared.film()?;
    let networks = prepared.model.networks::<WanVideo>()?;
    let sizes = &networks.sizes;
    let schedule = Schedule::new(&prepared.scheduler, film.steps as usize);
    let schedule = schedule.map_err(|error| PipelineError::Sampler(error.to_string()))?;
    let [h, w] = [film.height, film.width].map(|side| side as usize / sizes.scale().max(1));
    let shape = [sizes.latent_channels(), sizes.vae.latent_frames(film.frames as usize), h, w];

    let steps = prepared.scheduler.num_train_timesteps() as f64;
    let boundary = sizes.boundary_ratio.map(|ratio| ratio * steps);
    let branches = encode_prompts(compute, networks, film).await?;
    let beginning = Beginning::encode(compute, prepared, networks, shape).await?;
    let channels = sizes.transformers.first().map_or(0, |config| config.in_channels);
    let guided = Guided { compute, film, shape, channels, branches, beginning, boundary };
    let mut noise = noise_of(film);
    let [z, f, ..] = shape;
    let x = noise.draw([film.n as usize, z * f, h, w]).scale(schedule.init_noise_sigma()); // (n, z · F, h, w)
    let latents = sample(&guided, &schedule, 0.0, x, &mut noise).await?;
    let latents = guided.beginning.finish(latents, shape)?;

    decode(compute, sizes, &latents, shape, film).await
}

/// The states of the prompts: [negative prompt, prompt], or, without guidance, only the states of the prompt.
async fn encode_prompts(
    compute: &impl Compute,
    networks: &WanVideo,
    film: &Film,
) -> Result<Vec<TextEmbedding>, PipelineError> {
    let tokens = |text: &str| {
        let mut made = networks.tokenizer.encode(text, tokens_of(film));
        made.ids.truncate(made.tokens);
        made.ids
    };
    let negative = film.is_guided().then(|| tokens(&film.negative_prompt));
    let rows = negative.into_iter().chain([tokens(&film.prompt)]).collect();
    compute.call(Phase::Encoding, EncodePrompt, rows).await
}

/// The number of tokens of the texts with their padding. The padding affects the result.
fn tokens_of(film: &Film) -> usize {
    film.max_sequence_length.map_or(WanVideoSizes::TOKENS, |length| length as usize)
}

/// A [`Denoise`] that calls the denoiser for the negative prompt and the prompt, and combines the predictions.
struct Guided<'a, C> {
    compute: &'a C,
    film: &'a Film,
    /// (C, F, h, w)
    shape: [usize; 4],
    /// The channels of the denoiser's input.
    channels: usize,
    /// [negative prompt, prompt], or only the prompt.
    branches: Vec<TextEmbedding>,
    beginning: Beginning,
    /// The time below which the second denoiser predicts; `None` for models with one denoiser.
    boundary: Option<f64>,
}

impl<C: Compute> Denoise for Guided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let n = x.shape()[0];
        let is_second = self.boundary.is_some_and(|boundary| t < boundary);
        let call = DenoiseFilm {
            shape: [self.channels, self.shape[1], self.shape[2], self.shape[3]],
            channels: self.shape[0],
            tokens: tokens_of(self.film),
            network: usize::from(is_second),
        };
        let row = |text: &TextEmbedding, i| FilmRow {
            sample: self.beginning.sample(x.row(i), self.shape),
            t: t as f32,
            text: text.clone(),
            picture: self.beginning.tokens.clone(),
            is_known: self.beginning.is_known(),
        };
        let rows = self.branches.iter().flat_map(|text| (0..n).map(move |i| row(text, i))).collect();
        let answers = self.compute.call(Phase::Denoising, call, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let predictions = answers.chunks(n.max(1)).map(|rows| Latents::new(x.shape(), rows.concat()));
        match &predictions.collect::<Result<Vec<Latents>, Error>>()?[..] {
            [uncond, cond] => {
                let scale = self.film.guidance_scale_2.filter(|_| is_second).unwrap_or(self.film.guidance_scale);
                Ok(guide(uncond, cond, scale, 0.0))
            }
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

/// Decodes latents (n, z · F, h, w) to films, one latent frame after the other.
async fn decode(
    compute: &impl Compute,
    sizes: &WanVideoSizes,
    latents: &Latents,
    shape: [usize; 4],
    film: &Film,
) -> Result<Vec<Frame>, PipelineError> {
    let [_, f, h, w] = shape;
    // As for pictures, a limit of latent pixels says how many films are decoded at the same time.
    let together = (DECODING / (h * w).max(1)).max(1);
    let mut frames = Vec::with_capacity(film.n as usize);
    for films in (0..film.n as usize).collect::<Vec<_>>().chunks(together) {
        let mut clips = vec![Clip { frames: Vec::with_capacity(film.frames as usize), fps: film.fps }; films.len()];
        let mut rows = vec![FilmState::default(); films.len()];
        for i in 0..f {
            let begins = i == 0;
            let next = |(row, film): (&FilmState, &usize)| Ok(row.next(latent_frame(latents.row(*film), shape, i)?));
            rows = rows.iter().zip(films).map(next).collect::<Result<_, NetworkError>>()?;
            let stages = sizes.decode_stages([h, w], begins);
            for (stage, of_stage) in stages.iter().enumerate() {
                let (is_last, demand) = (stage + 1 == stages.len(), of_stage.demand);
                let call = FilmStage { way: FilmWay::Decode([h, w]), begins, stage, is_last, demand };
                rows = compute.call(Phase::Decoding, call, rows).await?;
            }
            if rows.len() != films.len() {
                return Err(no_answer("vae"));
            }
            for (clip, row) in clips.iter_mut().zip(&rows) {
                add(clip, row, sizes.vae.frames(1, begins), film)?;
            }
        }
        frames.extend(clips.into_iter().map(Frame::Clip));
    }
    Ok(frames)
}

/// The latent frame i of the latents (C, F, h, w) of a film, as the decoder takes it: (1, h, w, C).
fn latent_frame(latents: &[f32], [c, f, h, w]: [usize; 4], i: usize) -> Result<Tensor, NetworkError> {
    let channels: Vec<f32> =
        latents.chunks((f * h * w).max(1)).flat_map(|channel| channel[i * h * w..][..h * w].iter().copied()).collect();
    let frame = Tensor::from_vec(channels, (1, c, h, w), &HOST).and_then(|x| x.permute((0, 2, 3, 1))?.contiguous());
    frame.map_err(NetworkError::of("vae"))
}

/// Adds pixels (F, H, W, 3) in [-1, 1] to a clip.
fn add(clip: &mut Clip, row: &FilmState, frames: usize, film: &Film) -> Result<(), PipelineError> {
    let [height, width] = [film.height as usize, film.width as usize];
    let pixels = Activation(row.map().map_err(NetworkError::of("vae"))?.clone());
    pixels.read(&[frames, height, width, 3], |levels| {
        for levels in levels.chunks((3 * height * width).max(1)) {
            clip.add(width, height, levels.iter().map(|level| byte(*level)).collect());
        }
    })?;
    Ok(())
}
