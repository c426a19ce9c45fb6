//! How much memory a model takes.

use crate::weights::{LoadError, ModelFolder, float32_bytes};

/// Bytes of a model's tensors as float32, from the heads of its files: no weight is read for it. What small layers keep of
/// their weights as Winograd's algorithm wants them comes on top of that.
///
/// # Errors
/// A component's files are missing or broken.
pub(super) fn of(folder: &ModelFolder) -> Result<u64, LoadError> {
    let index = folder.json("model_index.json")?;
    // The tiny decoder is beside the index, which is diffusers' and does not know it.
    let tiny = folder.has("vae_tiny/config.json").then_some("vae_tiny");
    let mut bytes: u64 = 0;
    // A part of the class null is left out.
    let present = index.iter().filter(|(_, part)| part.get(1).is_some_and(|class| !class.is_null()));
    for component in present.map(|(component, _)| component.as_str()).chain(tiny) {
        if let Some(stem) = stem(component) {
            bytes = bytes.saturating_add(float32_bytes(folder, component, stem)?);
        }
    }
    Ok(bytes)
}

/// What the weights' file of a component is called. Others, such as a safety checker, are not loaded.
fn stem(component: &str) -> Option<&'static str> {
    match component {
        "text_encoder" | "text_encoder_2" | "text_encoder_3" => Some("model"),
        "unet" | "transformer" | "vae" | "vae_tiny" => Some("diffusion_pytorch_model"),
        _ => None,
    }
}
