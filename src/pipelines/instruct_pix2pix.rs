//! Recipe of InstructPix2Pix: changes a picture as an instruction says.

use super::{
    Compute, FittedInputs, Frame, PipelineError,
    conditioning::encode_prompts_beside,
    guided::{Branch, Guidance, Guided},
    latents::{encode, noise_of},
    pixels::normalized,
    refine::finish,
    setup::Setup,
};
use crate::{diffusion::sample, generation::Source};

/// Changes the request's picture as the prompt says (Brooks et al. 2023, arXiv:2211.09800). The network takes the
/// picture's latents as additional input channels, and some text encoders see the picture. For the same seed, color
/// values (0 to 255) differ by at most 2 from diffusers' `StableDiffusionInstructPix2PixPipeline` and its pipelines of
/// DreamLite.
pub(super) async fn instruct_pix2pix(
    setup: &Setup<'_, impl Compute>,
    inputs: &FittedInputs,
    source: &Source,
) -> Result<Vec<Frame>, PipelineError> {
    let picture = inputs.image()?;
    let Setup { compute, draw, .. } = *setup;
    let text = encode_prompts_beside(setup, inputs.seen()).await?;
    // The mean of the latents, without the scaling factor, because the network was trained on unscaled latents.
    let seen = encode(compute, normalized(picture, setup.size()), setup.size()).await?.unscaled;
    let unseen = vec![0.0; seen.len()];

    let schedule = &setup.stages.base;
    let mut noise = noise_of(draw);
    let shape = setup.shape();
    let x = noise.draw(shape).scale(schedule.init_noise_sigma()); // (n, C, h, w)

    let branch = |text, extra_channels: &Vec<f32>| {
        let extra_channels = vec![extra_channels.clone(); shape[0]];
        Branch {
            text,
            extra_channels,
            time_ids: [].into(),
            classes: Vec::new(),
            follows_prompt: true,
            skipped: [].into(),
        }
    };
    let branches = match text.negative {
        None => (vec![branch(text.positive, &seen)], Guidance::Off),
        Some(negative) => (
            vec![branch(text.positive, &seen), branch(negative.clone(), &seen), branch(negative, &unseen)],
            Guidance::Edit { scale: draw.guidance_scale, image_scale: source.image_guidance_scale() },
        ),
    };
    let guided = Guided::new(setup, branches).for_base_model(setup, inputs, schedule)?;
    let latents = sample(&guided, schedule, draw.eta, x, &mut noise).await?;

    finish(setup, latents, &mut noise).await
}
