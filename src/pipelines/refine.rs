//! The last steps by another model (SDXL's ensemble of experts: section 2.5 of Podell et al. 2023, arXiv:2307.01952).

use super::{
    Companions, Compute, Frame, LatentDiffusion, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::decode,
    setup::Setup,
};
use crate::{
    diffusion::{Latents, Noise, Stages, sample},
    generation::{Draw, MicroConditioning, Refiner},
};

/// What the sampler has left to pictures, by the refiner where the request names one.
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

/// Goes on with what the generation's own model has left, by `refiner`, and decodes what comes of it. The same pictures as
/// diffusers' `StableDiffusionXLImg2ImgPipeline` with `denoising_start` and the generator of the first pipeline.
async fn refine(
    setup: &Setup<'_, impl Compute>,
    refiner: &Refiner,
    latents: Latents,
    noise: &mut Noise,
) -> Result<Vec<Frame>, PipelineError> {
    let at_hand = (&setup.companions.refiner, setup.stages.refiner.clone(), setup.compute.refiner());
    let (Some((model, _)), Some(schedule), Some(compute)) = at_hand else {
        return Err(PipelineError::MissingInput("refiner"));
    };
    let draw = refined(setup.draw, refiner);
    let steps_before = setup.stages.own.steps().len();
    let stages = Stages { own: schedule, refiner: None };
    let companions = Companions::default();
    let networks = LatentDiffusion::of(model)?;
    let setup = Setup { compute: &compute, networks, stages, draw: &draw, companions: &companions };
    let text = encode_prompts(&setup).await?;

    let schedule = &setup.stages.own;
    let guided = Guided::new(&setup, classifier_free(text, &setup, Vec::new())).after(steps_before);
    let latents = sample(&guided, schedule, draw.eta, latents, noise).await?;

    decode(&setup, &latents).await
}

/// The generation as the refiner sees it.
fn refined(draw: &Draw, refiner: &Refiner) -> Draw {
    let negative_prompt = refiner.negative_prompt.clone().or_else(|| draw.negative_prompt.clone());
    let micro_conditioning = draw.micro_conditioning.clone().map(|micro| MicroConditioning {
        // A text of the refiner's own goes to all of its encoders.
        negative_prompt_2: micro.negative_prompt_2.filter(|_| refiner.negative_prompt.is_none()),
        aesthetic_score: refiner.aesthetic_score,
        negative_aesthetic_score: refiner.negative_aesthetic_score,
        ..micro
    });
    Draw { negative_prompt, micro_conditioning, clip_skip: 0, ..draw.clone() }
}
