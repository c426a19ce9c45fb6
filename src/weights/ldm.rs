//! The names of the first latent diffusion models (CompVis' `ldm`, Stability's `sgm`) → diffusers' names.

mod unet;

pub(super) use unet::{unet_layers, unet_name};
