//! A picture drawn over another.

use super::{
    Compute, Networks, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::{decode, encode_picture, noise_of, shape_of},
};
use crate::{
    diffusion::{Schedule, SchedulerConfig, sample},
    generation::{Generation, Source},
    imaging::RgbImage,
};

/// Lays noise over `picture` and takes it away again as the prompt says; `strength` is how much (SDEdit, Meng et al. 2022,
/// arXiv:2108.01073). The same pictures as diffusers' `StableDiffusionImg2ImgPipeline` for the same seed.
pub(super) async fn image_to_image(
    compute: &impl Compute,
    networks: &dyn Networks,
    scheduler: &SchedulerConfig,
    generation: &Generation,
    source: &Source,
    picture: &RgbImage,
) -> Result<Vec<RgbImage>, PipelineError> {
    let text = encode_prompts(compute, networks, generation).await?;
    let size = [generation.height, generation.width].map(|side| side as usize);
    let posterior = encode_picture(compute, picture, size).await?;

    let schedule = Schedule::of(scheduler, generation)?.for_strength(source.strength())?;
    let mut noise = noise_of(generation);
    let shape = shape_of(networks, generation);
    let x0 = posterior.sample(&mut noise, generation, shape)?; // (n, C, h, w)
    let x = schedule.add_noise(&schedule.timeline()[0], &x0, &noise.draw(shape));

    let (branches, guidance) = classifier_free(text, generation, Vec::new());
    let guided = Guided::new(compute, branches, guidance, generation);
    let latents = sample(&guided, &schedule, generation.eta, x, &mut noise).await?;

    decode(compute, generation, &latents).await
}
