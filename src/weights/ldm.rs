//! Translates the tensor names of the first latent diffusion models (CompVis' `ldm`, Stability's `sgm`) to diffusers'
//! names.

mod clip;
mod controlnet;
mod unet;
mod vae;

pub(super) use clip::{Part, clip_name, open_clip_parts};
pub(super) use controlnet::controlnet_name;
pub(super) use unet::{unet_layers, unet_name};
pub(super) use vae::vae_name;

/// The number at the start of a name, up to the separator `dot`, and the rest after the separator. Numbers above 999
/// are refused: no network has a thousand layers.
pub(super) fn number(name: &str, dot: char) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once(dot)?;
    Some((number.parse().ok().filter(|number| *number < 1000)?, rest))
}

/// The rest of a name after `start`: empty, or beginning with `dot`. `None` for other names.
fn tail<'a>(name: &'a str, start: &str, dot: char) -> Option<&'a str> {
    name.strip_prefix(start).filter(|rest| rest.is_empty() || rest.starts_with(dot))
}
