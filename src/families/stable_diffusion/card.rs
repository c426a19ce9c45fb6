//! The model card of the Stable Diffusion families.

use serde_json::{Map, Value};

use crate::{
    families::{
        CardError,
        card::{self, Defaults},
        extras::Extras,
    },
    generation::{Decoder, ModelCard, Task},
    models::latent_diffusion::{Input, Spec},
};

/// Default steps and guidance scales of requests.
pub(in crate::families) struct Guidance {
    pub steps: u32,
    pub guidance_scale: f64,
    /// Default for a request with a mask.
    pub inpaint_guidance_scale: f64,
}

pub(in crate::families) fn card(
    name: &str,
    extras: &Extras,
    spec: &Spec,
    (guidance, draws_from_noise): (Guidance, bool),
    scheduler_config: Map<String, Value>,
) -> Result<ModelCard, CardError> {
    let Guidance { steps, guidance_scale, inpaint_guidance_scale } = guidance;
    // A model that can only inpaint has the default of inpainting for all requests.
    let guidance_scale = if spec.input == Input::MaskedPicture { inpaint_guidance_scale } else { guidance_scale };
    let native = |side: usize| (side * spec.vae_scale_factor) as u32;
    let (width, height) = (native(spec.sample_size.1), native(spec.sample_size.0));
    // As in diffusers' pipeline, whose U-Net takes only a time and a text.
    let takes_text_alone = spec.time_id_count == 0 && !spec.guidance_embedding;
    let takes_motion = spec.input == Input::Latents && draws_from_noise && takes_text_alone;
    let base = if takes_motion { card::movable_base } else { card::base };
    let base = base(name, extras, scheduler_config, Defaults { width, height, steps, guidance_scale })?;
    Ok(ModelCard {
        takes_prompt: true,
        weighted_prompts: true,
        min_side_pixels: extras.min_size.unwrap_or(64).max(spec.size_multiple as u32),
        size_multiple: spec.size_multiple as u32,
        inpaint_guidance_scale: extras.guidance_scale.or(Some(inpaint_guidance_scale)),
        max_clip_skip: (spec.text_layers.saturating_sub(1) as u32).min(4),
        time_id_count: spec.time_id_count,
        text_encoders: spec.text_encoders,
        zero_negative: spec.zero_negative,
        flow: spec.flow,
        image_guidance_scale: (spec.input == Input::Picture).then_some(1.5),
        guidance_embedding: spec.guidance_embedding,
        context_width: spec.context_width,
        context_length: spec.context_length,
        text_widths: spec.text_widths,
        maps: spec.maps.clone(),
        latents: (spec.latent_channels, spec.vae_scale_factor),
        tasks: match spec.input {
            Input::Latents if !draws_from_noise => vec![Task::ImageToImage, Task::Inpaint],
            Input::Latents => vec![Task::TextToImage, Task::ImageToImage, Task::Inpaint],
            Input::MaskedPicture => vec![Task::Inpaint],
            Input::Picture => vec![Task::InstructPix2Pix],
            Input::References => vec![Task::Edit],
        },
        decoders: if spec.tiny_decoder { vec![Decoder::Full, Decoder::Tiny] } else { vec![Decoder::Full] },
        motion_groups: takes_motion.then_some(spec.norm_groups),
        default_motion_adapter: extras.motion_adapter.clone(),
        ..base
    })
}
