//! The last steps by another model (SDXL's ensemble of experts: section 2.5 of Podell et al. 2023, arXiv:2307.01952).

use super::{
    Companions, Compute, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::Guided,
    latents::decode,
    setup::Setup,
};
use crate::{
    diffusion::{InvalidSteps, Latents, Noise, Schedule, sample},
    generation::{Generation, Refiner, Sdxl},
    imaging::RgbImage,
};

impl<C: Compute> Setup<'_, C> {
    /// The share of the steps after which the generation's own model ends.
    fn handed_over_at(&self) -> Option<f64> {
        let refiner = self.generation.refiner.as_ref().map(|refiner| refiner.switch_at);
        refiner.or_else(|| self.generation.sdxl.as_ref()?.denoising_end)
    }

    /// The steps of the generation's own model.
    pub fn until_handed_over(&self, schedule: Schedule) -> Result<Schedule, InvalidSteps> {
        match self.handed_over_at() {
            Some(end) => schedule.until(end),
            None => Ok(schedule),
        }
    }

    /// How many steps follow by the refiner.
    pub fn steps_after(&self) -> Result<usize, InvalidSteps> {
        match (&self.companions.refiner, &self.generation.refiner) {
            (Some((_, scheduler)), Some(Refiner { switch_at, .. })) => {
                Ok(Schedule::new(scheduler, self.steps())?.from(*switch_at)?.steps().len())
            }
            _ => Ok(0),
        }
    }
}

/// Goes on with what the generation's own model has left, by `refiner`, and decodes what comes of it. The same pictures as
/// diffusers' `StableDiffusionXLImg2ImgPipeline` with `denoising_start` and the generator of the first pipeline.
pub(super) async fn refine(
    setup: &Setup<'_, impl Compute>,
    refiner: &Refiner,
    steps_before: usize,
    latents: Latents,
    noise: &mut Noise,
) -> Result<Vec<RgbImage>, PipelineError> {
    let (Some((model, scheduler)), Some(compute)) = (&setup.companions.refiner, setup.compute.refiner()) else {
        return Err(PipelineError::MissingInput("refiner"));
    };
    let generation = refined(setup.generation, refiner);
    let companions = Companions::default();
    let networks = model.networks.as_ref();
    let setup = Setup { compute: &compute, networks, scheduler, generation: &generation, companions: &companions };
    let text = encode_prompts(&setup).await?;

    let schedule = Schedule::new(scheduler, setup.steps())?.from(refiner.switch_at)?;
    let guided = Guided::new(&setup, classifier_free(text, &setup, Vec::new())).after(steps_before);
    let latents = sample(&guided, &schedule, generation.eta, latents, noise).await?;

    decode(&compute, &generation, &latents).await
}

/// The generation as the refiner sees it.
fn refined(generation: &Generation, refiner: &Refiner) -> Generation {
    let negative = refiner.negative_prompt.clone().or_else(|| generation.negative_prompt.clone());
    let sdxl = generation.sdxl.clone().map(|sdxl| Sdxl {
        aesthetic_score: refiner.aesthetic_score,
        negative_aesthetic_score: refiner.negative_aesthetic_score,
        ..sdxl
    });
    Generation { negative_prompt: Some(negative.unwrap_or_default()), sdxl, clip_skip: 0, ..generation.clone() }
}
