//! Selects the recipe of a latent diffusion model: text to image, image to image, inpainting, or editing by
//! instruction.

use super::{
    Compute, Frame, LatentDiffusion, PipelineError, Prepared,
    image_to_image::image_to_image,
    inpaint::inpaint,
    instruct_pix2pix::instruct_pix2pix,
    reference::{edit, inpaint_with_reference},
    setup::Setup,
    text_to_image::text_to_image,
};
use crate::{
    diffusion::{BaseSchedule, Stages},
    models::latent_diffusion::Input,
};

/// Runs the recipe that the request needs, for a model of type [`LatentDiffusion`].
///
/// # Errors
/// A network failed, the sampler produced a number that is not finite, or `prepared` lacks something that the
/// generation names.
pub async fn text_guided(compute: &impl Compute, prepared: &Prepared) -> Result<Vec<Frame>, PipelineError> {
    let Prepared { model, scheduler, auxiliary, inputs, .. } = prepared;
    let draw = prepared.draw()?;
    let networks = LatentDiffusion::of(model)?;
    let spec = networks.spec();
    let base = BaseSchedule { config: scheduler, is_distilled: spec.guidance_embedding, flow: spec.flow };
    let stages = Stages::of(draw, base, auxiliary.refiner.as_ref().map(|(_, scheduler)| scheduler))?;
    let setup = Setup { compute, networks, stages, draw, auxiliary };
    let Some(source) = &draw.source else {
        return text_to_image(&setup, inputs).await;
    };
    match networks.spec().input {
        Input::Picture => instruct_pix2pix(&setup, inputs, source).await,
        Input::References => match &source.mask {
            None => edit(&setup, inputs).await,
            Some(_) => inpaint_with_reference(&setup, inputs).await,
        },
        Input::Latents | Input::MaskedPicture => match &source.mask {
            None => image_to_image(&setup, inputs).await,
            Some(_) => inpaint(&setup, inputs, source).await,
        },
    }
}
