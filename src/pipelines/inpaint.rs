//! Recipe of inpainting: redraws the part of a picture that a mask covers.

use super::{
    Compute, FittedInputs, Frame, PipelineError,
    conditioning::{classifier_free, encode_prompts},
    guided::{Blend, Guided},
    latents::{encode, noise_of},
    pixels::{binarized, normalized, sampled},
    refine::finish,
    setup::Setup,
};
use crate::{
    diffusion::{Latents, sample},
    generation::Source,
    models::latent_diffusion::Input,
};

/// Redraws what the mask covers. With an ordinary network, the recipe restores the rest of the picture after every
/// network call (Lugmayr et al. 2022, arXiv:2201.09865, without resampling); a network trained for inpainting takes the
/// mask and the rest of the picture as input. For the same seed, color values (0 to 255) differ by at most 2 from
/// diffusers' `StableDiffusionInpaintPipeline`, except for the pixels that `keep_unmasked` restores.
pub(super) async fn inpaint(
    setup: &Setup<'_, impl Compute>,
    inputs: &FittedInputs,
    source: &Source,
) -> Result<Vec<Frame>, PipelineError> {
    let Setup { compute, networks, draw, .. } = *setup;
    let masked = inputs.masked()?;
    let text = encode_prompts(setup).await?;
    let size = setup.size();
    let pixels = normalized(&masked.picture, size); // (3, H, W)
    let mask = binarized(&masked.mask, size); // (H, W)
    let hidden = pixels.iter().zip(mask.iter().cycle()).map(|(pixel, mask)| pixel * (1.0 - mask)).collect();
    let [posterior, hidden] = [encode(compute, pixels, size).await?, encode(compute, hidden, size).await?];

    let whole = source.strength() == 1.0;
    let shows_mask = networks.spec().input == Input::MaskedPicture;
    let schedule = &setup.stages.base;
    let mut noise = noise_of(draw);
    let shape = setup.shape();
    // If both are true, sampling starts from pure noise, and the network sees only what the mask leaves visible. So the
    // latents of the whole picture are not needed.
    let x0 = match shows_mask && whole {
        true => Latents::new(shape, vec![0.0; shape.iter().product()])?,
        false => posterior.sample(&mut noise, draw, shape)?,
    };
    let z = noise.draw(shape); // (n, C, h, w)
    let x = match whole {
        true => z.scale(schedule.init_noise_sigma()),
        false => schedule.add_noise(&schedule.timeline()[0], &x0, &z),
    };
    // These latents are sampled for all networks, as in diffusers. Only networks trained for inpainting use them.
    let hidden = hidden.sample(&mut noise, draw, shape)?;
    let mask = sampled(&mask, size, networks.spec().vae_scale_factor); // (h, w)

    let beside = match shows_mask {
        true => (0..shape[0]).map(|i| [&mask, hidden.row(i)].concat()).collect(),
        false => Vec::new(),
    };
    let branches = classifier_free(text, setup, beside);
    let mut guided = Guided::new(setup, branches).for_base_model(setup, inputs, schedule)?;
    if !shows_mask {
        guided = guided.blended(Blend { image: x0, noise: z, mask });
    }
    let latents = sample(&guided, schedule, draw.eta, x, &mut noise).await?;

    let drawn = finish(setup, latents, &mut noise).await?;
    Ok(drawn.into_iter().map(|frame| frame.map_picture(|drawn| masked.complete(drawn))).collect())
}
