//! Recipe of class to image: latent diffusion with classifier-free guidance over classes.

use super::{
    Compute, Frame, LatentDiffusion, PipelineError, Prepared, TextEmbedding,
    guided::{Branch, Guidance, Guided},
    latents::noise_of,
    refine::finish,
    setup::Setup,
};
use crate::diffusion::{BaseSchedule, Stages, sample};

/// Draws the generation's `n` pictures, each of its class. For the same seed, color values (0 to 255) differ by at most
/// 2 from diffusers' `DiTPipeline`. Guidance compares the prediction for the class with the prediction for "no class",
/// which the network takes as one more class, after all others (Ho & Salimans 2022, arXiv:2207.12598).
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or the model has networks of another type.
pub async fn class_guided(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let Prepared { model, scheduler, auxiliary, .. } = prepared;
    let draw = prepared.draw()?;
    let networks = LatentDiffusion::of(model)?;
    let spec = networks.spec();
    let stages = Stages::of(draw, BaseSchedule { config: scheduler, is_distilled: false, flow: None }, None)?;
    let setup = Setup { compute, networks, stages, draw, auxiliary };

    let schedule = &setup.stages.base;
    let mut noise = noise_of(draw);
    let x = noise.draw(setup.shape()).scale(schedule.init_noise_sigma()); // (n, C, h, w)

    let no_text = TextEmbedding::zeros(&spec)?;
    let branch = |classes: Vec<u32>| Branch {
        text: no_text.clone(),
        extra_channels: Vec::new(),
        time_ids: [].into(),
        classes,
        follows_prompt: true,
        skipped: [].into(),
    };
    let (scale, rescale) = (draw.guidance_scale, draw.guidance_rescale);
    let none = vec![spec.classes as u32; draw.n as usize];
    let branches = match scale > 1.0 {
        true => (vec![branch(none), branch(draw.class_labels.clone())], Guidance::ClassifierFree { scale, rescale }),
        false => (vec![branch(draw.class_labels.clone())], Guidance::Off),
    };
    let latents = sample(&Guided::new(&setup, branches), schedule, draw.eta, x, &mut noise).await?;

    finish(&setup, latents, &mut noise).await
}
