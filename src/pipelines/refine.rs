//! The last steps by a refiner model (SDXL's ensemble of experts: section 2.5 of Podell et al. 2023, arXiv:2307.01952).

use super::{
    Auxiliary, Compute, Frame, LatentDiffusion, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::decode,
    setup::Setup,
};
use crate::{
    diffusion::{Latents, Noise, Stages, sample},
    generation::{Draw, FurtherPrompts, MicroConditioning, Refiner},
};

/// Turns the sampler's latents into pictures. If the request names a refiner, the refiner's steps run first.
pub(super) async fn finish(
    setup: &Setup<'_, impl Compute>,
    latents: Latents,
    noise: &mut Noise,
) -> Result<Vec<Frame>, PipelineError> {
    match &setup.draw.refiner {
        Some(refiner) => refine(setup, refiner, latents, noise).await,
        None => decode(setup, &latents).await,
    }
}

/// Continues from the latents of the generation's base model with `refiner`, and decodes the result. The pictures equal
/// the pictures of diffusers' `StableDiffusionXLImg2ImgPipeline` with `denoising_start` and the noise generator that
/// the pipeline of the base model has used.
async fn refine(
    setup: &Setup<'_, impl Compute>,
    refiner: &Refiner,
    latents: Latents,
    noise: &mut Noise,
) -> Result<Vec<Frame>, PipelineError> {
    let at_hand = (&setup.auxiliary.refiner, setup.stages.refiner.clone(), setup.compute.refiner());
    let (Some((model, _)), Some(schedule), Some(compute)) = at_hand else {
        return Err(PipelineError::MissingInput("refiner"));
    };
    let draw = refined(setup.draw, refiner);
    let steps_before = setup.stages.base.steps().len();
    let stages = Stages { base: schedule, refiner: None };
    let auxiliary = Auxiliary::default();
    let networks = LatentDiffusion::of(model)?;
    let setup = Setup { compute: &compute, networks, stages, draw: &draw, auxiliary: &auxiliary };
    let text = encode_prompts(&setup).await?;

    let schedule = &setup.stages.base;
    let guided = Guided::new(&setup, classifier_free(text, &setup, Vec::new())).after(steps_before);
    let latents = sample(&guided, schedule, draw.eta, latents, noise).await?;

    decode(&setup, &latents).await
}

/// A copy of the generation's request with the values that apply to the refiner.
fn refined(draw: &Draw, refiner: &Refiner) -> Draw {
    let negative_prompt = refiner.negative_prompt.clone().or_else(|| draw.negative_prompt.clone());
    let micro_conditioning = draw.micro_conditioning.clone().map(|micro| MicroConditioning {
        aesthetic_score: refiner.aesthetic_score,
        negative_aesthetic_score: refiner.negative_aesthetic_score,
        ..micro
    });
    // The refiner's negative prompt applies to all of its encoders.
    let negative_prompt_2 =
        draw.further_prompts.negative_prompt_2.clone().filter(|_| refiner.negative_prompt.is_none());
    let further_prompts = FurtherPrompts { negative_prompt_2, ..draw.further_prompts.clone() };
    Draw { negative_prompt, further_prompts, micro_conditioning, clip_skip: 0, ..draw.clone() }
}
