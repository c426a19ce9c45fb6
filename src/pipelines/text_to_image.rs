//! Recipe of text to image: latent diffusion with classifier-free guidance.

use super::{
    Compute, FittedInputs, Frame, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::noise_of,
    refine::finish,
    setup::Setup,
};
use crate::diffusion::sample;

/// Draws the generation's `n` pictures of `height` × `width` pixels (Rombach et al. 2022, arXiv:2112.10752; guidance:
/// Ho & Salimans 2022, arXiv:2207.12598). For the same seed, color values (0 to 255) differ by at most 2 from
/// diffusers' `StableDiffusionPipeline` and its variants for SDXL, latent consistency models and ControlNets.
pub(super) async fn text_to_image(
    setup: &Setup<'_, impl Compute>,
    inputs: &FittedInputs,
) -> Result<Vec<Frame>, PipelineError> {
    let text = encode_prompts(setup).await?;

    let schedule = &setup.stages.base;
    let mut noise = noise_of(setup.draw);
    let x = noise.draw(setup.shape()).scale(schedule.init_noise_sigma()); // (n, C, h, w)

    let branches = classifier_free(text, setup, Vec::new());
    let guided = Guided::new(setup, branches).for_base_model(setup, inputs, schedule)?;
    let latents = sample(&guided, schedule, setup.draw.eta, x, &mut noise).await?;

    finish(setup, latents, &mut noise).await
}
