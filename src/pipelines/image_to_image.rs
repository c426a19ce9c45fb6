//! A picture drawn over another.

use super::{
    Compute, Inputs, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::{encode_picture, finish, noise_of},
    setup::Setup,
};
use crate::{diffusion::sample, imaging::RgbImage};

/// Lays noise over `picture` and takes it away again as the prompt says; `strength` is how much (SDEdit, Meng et al. 2022,
/// arXiv:2108.01073). The same pictures as diffusers' `StableDiffusionImg2ImgPipeline` and its relatives for the same seed.
pub(super) async fn image_to_image(
    setup: &Setup<'_, impl Compute>,
    inputs: &Inputs,
    picture: &RgbImage,
) -> Result<Vec<RgbImage>, PipelineError> {
    let text = encode_prompts(setup).await?;
    let posterior = encode_picture(setup.compute, picture, setup.size()).await?;

    let schedule = &setup.stages.own;
    let mut noise = noise_of(setup.generation);
    let shape = setup.shape();
    let x0 = posterior.sample(&mut noise, setup.generation, shape)?; // (n, C, h, w)
    let x = schedule.add_noise(&schedule.timeline()[0], &x0, &noise.draw(shape));

    let branches = classifier_free(text, setup, Vec::new());
    let guided = Guided::new(setup, branches).steered(setup, inputs, schedule)?;
    let latents = sample(&guided, schedule, setup.generation.eta, x, &mut noise).await?;

    finish(setup, latents, &mut noise).await
}
