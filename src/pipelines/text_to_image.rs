//! Text to image: latent diffusion with classifier-free guidance.

use super::{
    Compute, Networks, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::{decode, noise_of, shape_of},
};
use crate::{
    diffusion::{Schedule, SchedulerConfig, sample},
    generation::Generation,
    imaging::RgbImage,
};

/// Draws the generation's `n` pictures, of `height` × `width` pixels (Rombach et al. 2022, arXiv:2112.10752; guidance:
/// Ho & Salimans 2022, arXiv:2207.12598). The same pictures as diffusers' `StableDiffusionPipeline` for the same seed.
pub(super) async fn text_to_image(
    compute: &impl Compute,
    networks: &dyn Networks,
    scheduler: &SchedulerConfig,
    generation: &Generation,
) -> Result<Vec<RgbImage>, PipelineError> {
    let text = encode_prompts(compute, networks, generation).await?;

    let schedule = Schedule::of(scheduler, generation)?;
    let mut noise = noise_of(generation);
    let x = noise.draw(shape_of(networks, generation)).scale(schedule.init_noise_sigma()); // (n, C, h, w)

    let (branches, guidance) = classifier_free(text, generation, Vec::new());
    let guided = Guided::new(compute, branches, guidance, generation);
    let latents = sample(&guided, &schedule, generation.eta, x, &mut noise).await?;

    decode(compute, generation, &latents).await
}
