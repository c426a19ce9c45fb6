//! A picture changed as an instruction says.

use super::{
    Compute, Networks, PipelineError,
    conditioning::encode_prompts,
    guided::{Branch, Guidance, Guided},
    latents::{decode, encode_picture, noise_of, shape_of},
};
use crate::{
    diffusion::{Schedule, SchedulerConfig, sample},
    generation::{Generation, Source},
    imaging::RgbImage,
};

/// Changes `picture` as the prompt says (Brooks et al. 2023, arXiv:2211.09800), for a network that sees its latents beside the
/// noisy ones. The same pictures as diffusers' `StableDiffusionInstructPix2PixPipeline` for the same seed.
pub(super) async fn instruct_pix2pix(
    compute: &impl Compute,
    networks: &dyn Networks,
    scheduler: &SchedulerConfig,
    generation: &Generation,
    source: &Source,
    picture: &RgbImage,
) -> Result<Vec<RgbImage>, PipelineError> {
    let text = encode_prompts(compute, networks, generation).await?;
    let size = [generation.height, generation.width].map(|side| side as usize);
    // The most likely latents, as the autoencoder has them: the network was trained without the scaling.
    let seen = encode_picture(compute, picture, size).await?.unscaled;
    let unseen = vec![0.0; seen.len()];

    let schedule = Schedule::of(scheduler, generation)?;
    let mut noise = noise_of(generation);
    let shape = shape_of(networks, generation);
    let x = noise.draw(shape).scale(schedule.init_noise_sigma()); // (n, C, h, w)

    let branch = |text, beside: &Vec<f32>| Branch { text, beside: vec![beside.clone(); shape[0]] };
    let (branches, guidance) = match text.negative {
        None => (vec![branch(text.positive, &seen)], Guidance::Off),
        Some(negative) => (
            vec![branch(text.positive, &seen), branch(negative.clone(), &seen), branch(negative, &unseen)],
            Guidance::Edit { scale: generation.guidance_scale, image_scale: source.image_guidance_scale() },
        ),
    };
    let guided = Guided::new(compute, branches, guidance, generation);
    let latents = sample(&guided, &schedule, generation.eta, x, &mut noise).await?;

    decode(compute, generation, &latents).await
}
