//! The latents of sounds: sampling and decoding, which all recipes of sounds share.

use super::{
    Activation, Compute, Frame, Networks, PipelineError, Prepared,
    calls::{DECODING, Decode},
    sound_guided::SoundGuided,
};
use crate::{
    diffusion::{Latents, Noise, Schedule, sample},
    generation::{Phase, SeedMode, Sound},
};

/// Samples the generation's `n` sounds with latents of `shape`, (C, h, w).
///
/// # Errors
/// A network failed, the scheduler cannot run the steps, or the sampler produced a number that is not finite.
pub(super) async fn sampled<C: Compute>(
    guided: &SoundGuided<'_, C>,
    prepared: &Prepared,
    [c, h, w]: [usize; 3],
) -> Result<Latents, PipelineError> {
    let sound = prepared.sound()?;
    let schedule = Schedule::of_sound(&prepared.scheduler, sound);
    let schedule = schedule.map_err(|error| PipelineError::Sampler(error.to_string()))?;
    let mut noise = noise_of(sound);
    let x = noise.draw([sound.n as usize, c, h, w]).scale(schedule.init_noise_sigma()); // (n, C, h, w)
    Ok(sample(guided, &schedule, sound.eta, x, &mut noise).await?)
}

fn noise_of(sound: &Sound) -> Noise {
    match sound.seed_mode {
        SeedMode::Batch => Noise::batch(sound.seed),
        SeedMode::PerImage => Noise::per_image(&(0..sound.n).map(|i| sound.seed_of(i)).collect::<Vec<_>>()),
    }
}

/// Decodes latents (n, C, h, w), some sounds at a time. `finish` turns the answers of the last stage into frames.
///
/// # Errors
/// A network or `finish` failed.
pub(super) async fn decoded(
    compute: &impl Compute,
    networks: &dyn Networks,
    latents: &Latents,
    finish: impl AsyncFn(Vec<Activation>) -> Result<Vec<Frame>, PipelineError>,
) -> Result<Vec<Frame>, PipelineError> {
    let [n, c, h, w] = latents.shape();
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
        frames.extend(finish(rows).await?);
    }
    Ok(frames)
}
