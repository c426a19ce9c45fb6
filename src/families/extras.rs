//! The optional file `latentd.json` in a model's folder: settings that diffusers' files do not have.

use serde::Deserialize;
use serde_json::Value;

use super::CardError;
use crate::{
    diffusion::Latents,
    generation::Precision,
    pipelines::{Frame, LatentRgb, NetworkError, Networks, decoding::decode_alone},
    weights::{LoadError, ModelFolder},
};

/// The keys of `latentd.json`, all optional: description, defaults and least size of requests (in pixels), example
/// prompts, the default motion adapter, and preview colors.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Extras {
    pub description: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub min_size: Option<u32>,
    pub steps: Option<u32>,
    pub guidance_scale: Option<f64>,
    pub precision: Precision,
    pub prompts: Vec<String>,
    /// The motion adapter of requests for films that name none.
    pub motion_adapter: Option<String>,
    pub preview: Option<LatentRgb>,
}

/// The largest value of a size in `latentd.json`, in pixels.
const LARGEST_SIDE: f64 = 65536.0;

impl Extras {
    /// Reads the file; a folder without it has no extras.
    ///
    /// # Errors
    /// The file is broken, or a number is out of bounds.
    pub fn read(folder: &ModelFolder) -> Result<Extras, CardError> {
        if !folder.has("latentd.json") {
            return Ok(Extras::default());
        }
        let json = folder.json("latentd.json")?;
        let extras: Extras = serde_path_to_error::deserialize(Value::Object(json)).map_err(|error| {
            CardError::Extras { key: error.path().to_string(), reason: error.into_inner().to_string() }
        })?;
        extras.check()?;
        Ok(extras)
    }

    fn check(&self) -> Result<(), CardError> {
        let whole = |value: Option<u32>| value.map(f64::from);
        for (key, value, least, most) in [
            ("width", whole(self.width), 1.0, LARGEST_SIDE),
            ("height", whole(self.height), 1.0, LARGEST_SIDE),
            ("min_size", whole(self.min_size), 1.0, LARGEST_SIDE),
            ("steps", whole(self.steps), 1.0, 1000.0),
            ("guidance_scale", self.guidance_scale, 0.0, 30.0),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(CardError::Bound { key, value, least, most });
            }
        }
        Ok(())
    }
}

/// The colors of previews: those of `latentd.json`, or otherwise colors that are fitted to the decoder of `networks`.
///
/// # Errors
/// The decoder failed.
pub(super) fn latent_rgb(folder: &ModelFolder, networks: &impl Networks) -> Result<LatentRgb, LoadError> {
    fitted_rgb(folder, networks.spec().latent_channels, |latents| decode_alone(networks, latents))
}

/// [`latent_rgb`] for latents of `channels` channels and their decoder.
///
/// # Errors
/// The decoder failed.
pub(super) fn fitted_rgb(
    folder: &ModelFolder,
    channels: usize,
    decode: impl Fn(&Latents) -> Result<Vec<Frame>, NetworkError>,
) -> Result<LatentRgb, LoadError> {
    // Errors are ignored here, because a broken `latentd.json` was already rejected when the card was read.
    let given = Extras::read(folder).ok().and_then(|extras| extras.preview);
    match given.filter(|map| map.weight.len() == channels) {
        Some(map) => Ok(map),
        None => LatentRgb::fit(channels, decode).map_err(|error| LoadError::Preview(error.to_string())),
    }
}
