//! From a generation to its results, whatever it begins with.

use super::{
    Companions, Compute, Frame, Inputs, Networks, PipelineError, image_to_image::image_to_image, inpaint::inpaint,
    instruct_pix2pix::instruct_pix2pix, setup::Setup, text_to_image::text_to_image,
};
use crate::{
    diffusion::{OwnSchedule, SchedulerConfig, Stages},
    generation::Generation,
    models::latent_diffusion::Input,
};

/// Runs the pipeline that the request asks for.
///
/// # Errors
/// A network failed, the sampler left the finite numbers, or what the generation names is not in `inputs` or `companions`.
pub async fn generate(
    compute: &impl Compute,
    networks: &dyn Networks,
    scheduler: &SchedulerConfig,
    generation: &Generation,
    inputs: &Inputs,
    companions: &Companions,
) -> Result<Vec<Frame>, PipelineError> {
    let own = OwnSchedule { config: scheduler, is_distilled: networks.spec().guidance_embedding };
    let stages = Stages::of(generation, own, companions.refiner.as_ref().map(|(_, scheduler)| scheduler))?;
    let setup = Setup { compute, networks, stages, generation, companions };
    let Some(source) = &generation.source else {
        return text_to_image(&setup, inputs).await;
    };
    match networks.spec().input {
        Input::Picture => instruct_pix2pix(&setup, inputs, source).await,
        Input::Latents | Input::MaskedPicture => match &source.mask {
            None => image_to_image(&setup, inputs).await,
            Some(mask) => inpaint(&setup, inputs, source, mask).await,
        },
    }
}
