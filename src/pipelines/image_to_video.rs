//! Recipe of image to video: latent diffusion of clips that begin with a picture.

use std::sync::Arc;

use super::{
    Activation, Clip, Compute, Frame, PipelineError, Prepared, StableVideo,
    antialiased::CLIP_SIDE,
    byte,
    calls::{ClipRow, DECODING, DecodeClip, DenoiseClip, EncodePicture, EncodeStill},
    pixels::normalized,
};
use crate::{
    diffusion::{Denoise, Error, Latents, Noise, Schedule, sample},
    generation::{Film, Motion, Phase, SeedMode},
};

/// Makes the generation's `n` films (Blattmann et al. 2023, arXiv:2311.15127). For the same seed, color values (0 to
/// 255) differ by at most 2 from diffusers' `StableVideoDiffusionPipeline`.
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the job is not for this model.
pub async fn image_to_video(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let film = prepared.film()?;
    let motion = film.motion.ok_or(PipelineError::OtherWork("make films of a picture"))?;
    let networks = prepared.model.networks::<StableVideo>()?;
    let sizes = &networks.sizes;
    let schedule = Schedule::new(&prepared.scheduler, film.steps as usize);
    let schedule = schedule.map_err(|error| PipelineError::Sampler(error.to_string()))?;
    let size = [film.height as usize, film.width as usize];
    let [h, w] = size.map(|side| side / sizes.scale().max(1));
    let shape = [film.frames as usize, sizes.latent_channels(), h, w];

    let pixels = prepared.inputs.for_encoder()?.to_vec();
    let vectors = compute.call(Phase::Encoding, EncodePicture { side: CLIP_SIDE }, vec![pixels]).await?;
    let mut noise = noise_of(film);
    let noisy = with_noise(&normalized(prepared.inputs.image()?, size), size, motion, film, &mut noise);
    let stills = compute.call(Phase::Encoding, EncodeStill { size }, noisy).await?;

    let [f, c, ..] = shape;
    let x = noise.draw([film.n as usize, f * c, h, w]).scale(schedule.init_noise_sigma()); // (n, F · C, h, w)
    let [vector] = &vectors[..] else { return Err(no_answer("image encoder")) };
    let guided = Guided::new(compute, film, motion, shape, stills, vector)?;
    let latents = sample(&guided, &schedule, 0.0, x, &mut noise).await?;

    decode(compute, networks, &latents, shape, film).await
}

/// The noise of all films, as their seeds say.
pub(super) fn noise_of(film: &Film) -> Noise {
    match film.seed_mode {
        SeedMode::Batch => Noise::batch(film.seed),
        SeedMode::PerImage => Noise::per_image(&(0..film.n).map(|i| film.seed_of(i)).collect::<Vec<_>>()),
    }
}

/// The picture (3, H, W) with noise, for each film whose picture has noise of its own. If the films share a noise
/// generator, they share the picture as well, as in diffusers.
fn with_noise(
    pixels: &[f32],
    [height, width]: [usize; 2],
    motion: Motion,
    film: &Film,
    noise: &mut Noise,
) -> Vec<Vec<f32>> {
    let strength = motion.noise_aug_strength as f32;
    let rows = match film.seed_mode {
        SeedMode::Batch => 1,
        SeedMode::PerImage => film.n as usize,
    };
    let drawn = noise.draw([rows, 3, height, width]);
    let row = |i| pixels.iter().zip(drawn.row(i)).map(|(level, z)| level + strength * z).collect();
    (0..rows).map(row).collect()
}

/// Decodes latents (n, F · C, h, w) to films. The decoder sees `decode_chunk_size` frames of a film at a time.
async fn decode(
    compute: &impl Compute,
    networks: &StableVideo,
    latents: &Latents,
    [f, c, h, w]: [usize; 4],
    film: &Film,
) -> Result<Vec<Frame>, PipelineError> {
    let [n, ..] = latents.shape();
    let chunk = film.decode_chunk_size.map_or(f, |size| size as usize).clamp(1, f.max(1));
    let mut clips = vec![Clip { frames: Vec::with_capacity(f), fps: film.fps }; n];
    for first in (0..f).step_by(chunk) {
        let count = chunk.min(f - first);
        let shape = [count, c, h, w];
        // As for pictures, a limit of latent pixels says how many clips are decoded at the same time.
        let together = (DECODING / (count * h * w).max(1)).max(1);
        let shares = networks.decode_stages(shape);
        for together in (0..n).collect::<Vec<_>>().chunks(together) {
            let frame = c * h * w;
            let cut = |film: &usize| latents.row(*film)[first * frame..][..count * frame].to_vec();
            let rows = together.iter().map(|film| Activation::of_clip(cut(film), shape));
            let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
            for (stage, share) in shares.iter().copied().enumerate() {
                let is_last = stage + 1 == shares.len();
                rows = compute.call(Phase::Decoding, DecodeClip { shape, stage, is_last, share }, rows).await?;
            }
            let size = [film.height as usize, film.width as usize];
            for (i, pixels) in together.iter().zip(&rows) {
                add(&mut clips[*i], pixels, count, size)?;
            }
        }
    }
    Ok(clips.into_iter().map(Frame::Clip).collect())
}

/// Adds pixels (1, F, H, W, 3) in [-1, 1] to a clip.
fn add(clip: &mut Clip, pixels: &Activation, frames: usize, [h, w]: [usize; 2]) -> Result<(), PipelineError> {
    pixels.read(&[1, frames, h, w, 3], |levels| {
        for levels in levels.chunks((3 * h * w).max(1)) {
            clip.add(w, h, levels.iter().map(|level| byte(*level)).collect());
        }
    })?;
    Ok(())
}

/// The picture that a film begins with, as the denoiser sees it. Cheap to clone.
#[derive(Clone, Debug)]
struct Still {
    /// (C, h, w)
    latents: Arc<[f32]>,
    vector: Arc<[f32]>,
}

/// A [`Denoise`] that calls the denoiser without and with the picture, and combines the predictions for each frame with
/// a scale of its own.
struct Guided<'a, C> {
    compute: &'a C,
    /// (F, C, h, w)
    shape: [usize; 4],
    /// [without the picture, with it], or only with it, for each film.
    branches: Vec<Vec<Still>>,
    /// The guidance scale of each frame.
    scales: Vec<f64>,
    time_ids: [f32; 3],
}

impl<'a, C: Compute> Guided<'a, C> {
    /// `stills` are the latents of the picture, one for each film or one for all.
    fn new(
        compute: &'a C,
        film: &Film,
        motion: Motion,
        shape: [usize; 4],
        stills: Vec<Vec<f32>>,
        vector: &[f32],
    ) -> Result<Self, PipelineError> {
        if stills.is_empty() {
            return Err(no_answer("autoencoder"));
        }
        let vector: Arc<[f32]> = vector.into();
        let still = |latents: Vec<f32>| Still { latents: latents.into(), vector: vector.clone() };
        let stills: Vec<Still> = stills.into_iter().map(still).collect();
        let zeros = |like: &[f32]| vec![0.0; like.len()].into();
        let none = Still { latents: zeros(&stills[0].latents), vector: zeros(&vector) };
        let with: Vec<Still> = stills.iter().cycle().take(film.n as usize).cloned().collect();
        let without = film.is_guided().then(|| vec![none; with.len()]);
        let branches = without.into_iter().chain([with]).collect();
        // The network was trained on the number of frames per second minus 1.
        let time_ids =
            [film.fps.saturating_sub(1) as f32, motion.motion_bucket_id as f32, motion.noise_aug_strength as f32];
        let scales = (0..film.frames).map(|frame| film.guidance_of(frame)).collect();
        Ok(Self { compute, shape, branches, scales, time_ids })
    }

    /// `uncond + s · (cond − uncond)` of each frame, for predictions (n, F · C, h, w).
    fn guide(&self, uncond: &Latents, cond: &Latents) -> Result<Latents, Error> {
        let frame = self.shape[1..].iter().product::<usize>().max(1);
        let pairs = uncond.data().chunks(frame).zip(cond.data().chunks(frame));
        let guided = pairs.zip(self.scales.iter().cycle()).flat_map(|((uncond, cond), scale)| {
            let pairs = uncond.iter().zip(cond).map(|(uncond, cond)| (f64::from(*uncond), f64::from(*cond)));
            pairs.map(move |(uncond, cond)| (uncond + scale * (cond - uncond)) as f32)
        });
        Latents::new(cond.shape(), guided.collect())
    }
}

impl<C: Compute> Denoise for Guided<'_, C> {
    async fn predict(&self, x: &Latents, t: f64) -> Result<Latents, Error> {
        let row = |(i, still): (usize, &Still)| ClipRow {
            latents: x.row(i).to_vec(),
            t: t as f32,
            picture: still.latents.clone(),
            vector: still.vector.clone(),
            time_ids: self.time_ids,
        };
        let rows = self.branches.iter().flat_map(|films| films.iter().enumerate().map(row)).collect();
        let answers = self.compute.call(Phase::Denoising, DenoiseClip { shape: self.shape }, rows).await;
        let answers = answers.map_err(|error| Error::Denoiser(Box::new(error)))?;
        let [n, ..] = x.shape();
        let predictions = answers.chunks(n.max(1)).map(|rows| Latents::new(x.shape(), rows.concat()));
        match &predictions.collect::<Result<Vec<Latents>, Error>>()?[..] {
            [uncond, cond] => self.guide(uncond, cond),
            [only] => Ok(only.clone()),
            others => {
                Err(Error::Denoiser(format!("{} answers to {} branches", others.len(), self.branches.len()).into()))
            }
        }
    }

    fn stepped(&self, step: usize, steps: usize, denoised: &Latents) {
        self.compute.stepped(step, steps, denoised);
    }
}

pub(super) fn no_answer(network: &str) -> PipelineError {
    PipelineError::Sampler(format!("the {network} gave no answer"))
}
