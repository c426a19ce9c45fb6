//! From a generation to its pictures, whatever it begins with.

use super::{
    Compute, Inputs, Networks, PipelineError, image_to_image::image_to_image, inpaint::inpaint,
    instruct_pix2pix::instruct_pix2pix, text_to_image::text_to_image,
};
use crate::{diffusion::SchedulerConfig, generation::Generation, imaging::RgbImage, models::stable_diffusion::Input};

/// Runs the pipeline that the request asks for.
///
/// # Errors
/// A network failed, the sampler left the finite numbers, or a picture that the generation names is not in `inputs`.
pub async fn generate(
    compute: &impl Compute,
    networks: &dyn Networks,
    scheduler: &SchedulerConfig,
    generation: &Generation,
    inputs: Inputs,
) -> Result<Vec<RgbImage>, PipelineError> {
    let Some(source) = &generation.source else {
        return text_to_image(compute, networks, scheduler, generation).await;
    };
    let image = inputs.image.ok_or(PipelineError::MissingInput("image"))?;
    match networks.spec().input {
        Input::Picture => instruct_pix2pix(compute, networks, scheduler, generation, source, &image).await,
        Input::Latents | Input::MaskedPicture => match &source.mask {
            None => image_to_image(compute, networks, scheduler, generation, source, &image).await,
            Some(settings) => {
                let mask = inputs.mask.ok_or(PipelineError::MissingInput("mask"))?;
                inpaint(compute, networks, scheduler, generation, source, &image, (&mask, settings)).await
            }
        },
    }
}
