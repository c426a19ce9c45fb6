//! The settings of the processor that prepares pictures (transformers' `Qwen2VLImageProcessor`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{SIDE, VisionConfig};
use crate::{
    models::configuration::{Fixed, read},
    weights::{LoadError, ModelFolder},
};

/// The keys that must fit the network, with the defaults of the published models.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Processor {
    merge_size: usize,
    patch_size: usize,
    temporal_patch_size: usize,
    size: Option<Bounds>,
    min_pixels: Option<u64>,
    max_pixels: Option<u64>,
}

impl Default for Processor {
    fn default() -> Self {
        let (size, min_pixels, max_pixels) = (None, None, None);
        Self { merge_size: 2, patch_size: 16, temporal_patch_size: 2, size, min_pixels, max_pixels }
    }
}

/// Bounds of the number of pixels, in spite of the names.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    shortest_edge: u64,
    longest_edge: u64,
}

const FIXED: &[Fixed] = &[
    ("do_center_crop", &["false", "null"]),
    ("do_normalize", &["true"]),
    ("do_pad", &["false", "null"]),
    ("do_rescale", &["true"]),
    ("image_mean", &["[0.5, 0.5, 0.5]"]),
    ("image_std", &["[0.5, 0.5, 0.5]"]),
    ("rescale_factor", &["0.00392156862745098"]),
    // Pictures are RGB and have a size that is kept, so these settings have no effect.
    ("crop_size", &[]),
    ("data_format", &[]),
    ("default_to_square", &[]),
    ("device", &[]),
    ("disable_grouping", &[]),
    ("do_convert_rgb", &[]),
    ("do_resize", &[]),
    ("image_processor_type", &[]),
    ("input_data_format", &[]),
    ("pad_size", &[]),
    ("processor_class", &[]),
    ("resample", &[]),
    ("return_tensors", &[]),
];

/// The files that may have the settings, and the key that has them in the file.
const FILES: [(&str, Option<&str>); 2] =
    [("processor/preprocessor_config.json", None), ("processor/processor_config.json", Some("image_processor"))];

/// Checks that the processor in the subfolder `processor` prepares pictures of [`SIDE`] × [`SIDE`] pixels for the
/// network, and keeps their size.
pub(super) fn check(folder: &ModelFolder, config: &VisionConfig) -> Result<(), LoadError> {
    let (path, key) = FILES.into_iter().find(|(path, _)| folder.has(path)).unwrap_or(FILES[0]);
    let mut keys = folder.json(path)?;
    if let Some(key) = key {
        keys = match keys.remove(key) {
            Some(Value::Object(keys)) => keys,
            _ => Map::new(),
        };
    }
    let processor: Processor = read(path, &keys, FIXED)?;
    let bad = |key: &str, reason: String| Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
    for (key, value, wanted) in [
        ("merge_size", processor.merge_size, config.spatial_merge_size),
        ("patch_size", processor.patch_size, config.patch_size),
        ("temporal_patch_size", processor.temporal_patch_size, config.temporal_patch_size),
    ] {
        if value != wanted {
            return bad(key, format!("must be {wanted}, as in the vision_config of text_encoder, not {value}"));
        }
    }
    let pixels = u64::from(SIDE) * u64::from(SIDE);
    let (least, most) = (processor.size.map(|size| size.shortest_edge), processor.size.map(|size| size.longest_edge));
    let (least, most) = (processor.min_pixels.or(least).unwrap_or(0), processor.max_pixels.or(most).unwrap_or(pixels));
    if !(least..=most).contains(&pixels) {
        return bad("size", format!("pictures of {pixels} pixels are not between {least} and {most}"));
    }
    if !(SIDE as usize).is_multiple_of(config.token_side()) {
        return bad("patch_size", format!("tokens of {} pixels per side do not divide {SIDE}", config.token_side()));
    }
    Ok(())
}
