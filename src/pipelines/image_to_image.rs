//! Recipe of image to image: draws over the request's picture.

use super::{
    Compute, FittedInputs, Frame, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::{encode, noise_of},
    pixels::normalized,
    refine::finish,
    setup::Setup,
};
use crate::diffusion::sample;

/// Adds noise to the request's picture and denoises it as the prompt says; `strength` sets the amount of noise (SDEdit,
/// Meng et al. 2022, arXiv:2108.01073). For the same seed, color values (0 to 255) differ by at most 2 from diffusers'
/// `StableDiffusionImg2ImgPipeline` and its variants.
pub(super) async fn image_to_image(
    setup: &Setup<'_, impl Compute>,
    inputs: &FittedInputs,
) -> Result<Vec<Frame>, PipelineError> {
    let picture = inputs.image()?;
    let text = encode_prompts(setup).await?;
    let posterior = encode(setup.compute, normalized(picture, setup.size()), setup.size()).await?;

    let schedule = &setup.stages.base;
    let mut noise = noise_of(setup.draw);
    let shape = setup.shape();
    let x0 = posterior.sample(&mut noise, setup.draw, shape)?; // (n, C, h, w)
    let x = schedule.add_noise(&schedule.timeline()[0], &x0, &noise.draw(shape));

    let branches = classifier_free(text, setup, Vec::new());
    let guided = Guided::new(setup, branches).for_base_model(setup, inputs, schedule)?;
    let latents = sample(&guided, schedule, setup.draw.eta, x, &mut noise).await?;

    finish(setup, latents, &mut noise).await
}
