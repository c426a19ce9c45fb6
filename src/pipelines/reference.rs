//! Recipes of models that see pictures as further tokens: editing by a prompt, and inpainting.

use super::{
    Compute, FittedInputs, Frame, PipelineError, Reference,
    conditioning::{classifier_free, encode_prompts},
    guided::{Blend, Guided},
    latents::{encode, noise_of},
    pixels::{binarized, halfway, middle, normalized},
    refine::finish,
    setup::Setup,
};
use crate::diffusion::{Latents, sample};

/// Draws from noise; the network sees the request's pictures. For the same seed, color values (0 to 255) differ by at
/// most 2 from diffusers' `Flux2KleinPipeline`.
pub(super) async fn edit(setup: &Setup<'_, impl Compute>, inputs: &FittedInputs) -> Result<Vec<Frame>, PipelineError> {
    let text = encode_prompts(setup).await?;
    let spec = setup.networks.spec();
    let mut references = Vec::with_capacity(inputs.references().len());
    for picture in inputs.references() {
        let (pixels, size) = middle(picture, spec.size_multiple as u32);
        let latents = encode(setup.compute, pixels, size).await?.mean;
        references.push(Reference { latents, size: size.map(|side| side / spec.vae_scale_factor) });
    }
    if references.is_empty() {
        return Err(PipelineError::MissingInput("image"));
    }

    let schedule = &setup.stages.base;
    let mut noise = noise_of(setup.draw);
    let x = noise.draw(setup.shape()).scale(schedule.init_noise_sigma()); // (n, C, h, w)
    let branches = classifier_free(text, setup, Vec::new());
    let guided = Guided::new(setup, branches).showing(references).for_base_model(setup, inputs, schedule)?;
    let latents = sample(&guided, schedule, setup.draw.eta, x, &mut noise).await?;

    finish(setup, latents, &mut noise).await
}

/// Redraws what the mask covers, and restores the rest of the picture after every network call. The network sees the
/// whole picture. For the same seed, color values (0 to 255) differ by at most 2 from diffusers'
/// `Flux2KleinInpaintPipeline`, except for the pixels that `keep_unmasked` restores.
pub(super) async fn inpaint_with_reference(
    setup: &Setup<'_, impl Compute>,
    inputs: &FittedInputs,
) -> Result<Vec<Frame>, PipelineError> {
    let masked = inputs.masked()?;
    let text = encode_prompts(setup).await?;
    let (size, scale) = (setup.size(), setup.networks.spec().vae_scale_factor);
    let posterior = encode(setup.compute, normalized(&masked.picture, size), size).await?;

    let schedule = &setup.stages.base;
    let mut noise = noise_of(setup.draw);
    let shape = setup.shape();
    let x0 = Latents::new(shape, posterior.mean.repeat(shape[0]))?; // (n, C, h, w)
    let z = noise.draw(shape);
    let x = schedule.add_noise(&schedule.timeline()[0], &x0, &z);

    let reference = Reference { latents: posterior.mean, size: size.map(|side| side / scale) };
    let mask = halfway(&binarized(&masked.mask, size), size, scale); // (h, w)
    let branches = classifier_free(text, setup, Vec::new());
    let guided = Guided::new(setup, branches).showing(vec![reference]).for_base_model(setup, inputs, schedule)?;
    let guided = guided.blended(Blend { image: x0, noise: z, mask });
    let latents = sample(&guided, schedule, setup.draw.eta, x, &mut noise).await?;

    let drawn = finish(setup, latents, &mut noise).await?;
    Ok(drawn.into_iter().map(|frame| frame.map_picture(|drawn| masked.complete(drawn))).collect())
}
