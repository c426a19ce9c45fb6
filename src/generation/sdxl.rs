//! What models of Stable Diffusion XL's kind are told beside a prompt.

use serde::{Deserialize, Serialize};

use super::{Fields, ModelCard};

/// Texts for the second encoder, and the numbers that the model was trained to draw by (section 2.2 of Podell et al. 2023,
/// arXiv:2307.01952). Sizes are [height, width] in pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sdxl {
    /// `None` is the prompt again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_2: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt_2: Option<String>,
    /// Of a picture that was scaled for the training.
    pub original_size: [u32; 2],
    /// [top, left] of the part that was shown.
    pub crop_top_left: [u32; 2],
    pub target_size: [u32; 2],
    pub negative_original_size: [u32; 2],
    pub negative_crop_top_left: [u32; 2],
    pub negative_target_size: [u32; 2],
    /// How pleasing, for models that are told so in place of the target size.
    pub aesthetic_score: f64,
    pub negative_aesthetic_score: f64,
    /// The share of the steps after which the run ends, with what noise is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denoising_end: Option<f64>,
}

/// diffusers' defaults.
const SCORE: f64 = 6.0;
const NEGATIVE_SCORE: f64 = 2.5;

const NAMES: [&str; 11] = [
    "prompt_2",
    "negative_prompt_2",
    "original_size",
    "crop_top_left",
    "target_size",
    "negative_original_size",
    "negative_crop_top_left",
    "negative_target_size",
    "aesthetic_score",
    "negative_aesthetic_score",
    "denoising_end",
];

impl Sdxl {
    /// Reads the fields for a picture of this size, of a request with or without an image; of other models they are refused.
    pub(super) fn read(
        fields: &mut Fields,
        card: &ModelCard,
        (width, height): (u32, u32),
        has_image: bool,
        max_chars: usize,
    ) -> Option<Sdxl> {
        if card.time_ids == 0 {
            for name in NAMES {
                if fields.take(name).is_some() {
                    let detail = format!("cannot be used with the model {:?}: it is for SDXL's kind", card.name);
                    fields.error(name, "unsupported_for_model", detail);
                }
            }
            return None;
        }
        let whole = [height, width];
        let original_size = pair(fields, "original_size", 1).unwrap_or(whole);
        let crop_top_left = pair(fields, "crop_top_left", 0).unwrap_or([0, 0]);
        let target_size = pair(fields, "target_size", 1).unwrap_or(whole);
        let negative_original_size = pair(fields, "negative_original_size", 1);
        let negative_target_size = pair(fields, "negative_target_size", 1);
        // As diffusers has it: a model that is told a score takes a crop of its own, one that begins with a picture the
        // prompt's, and one that begins with noise the prompt's unless it is told of sizes for the negative prompt.
        let apart = match (has_image, card.time_ids) {
            (true, 5) => true,
            (true, _) => false,
            (false, _) => negative_original_size.is_some() || negative_target_size.is_some(),
        };
        let crop = if apart { [0, 0] } else { crop_top_left };
        Some(Sdxl {
            prompt_2: fields.text("prompt_2", max_chars),
            negative_prompt_2: fields.text("negative_prompt_2", max_chars),
            original_size,
            crop_top_left,
            target_size,
            negative_original_size: negative_original_size.unwrap_or(original_size),
            negative_crop_top_left: pair(fields, "negative_crop_top_left", 0).unwrap_or(crop),
            negative_target_size: negative_target_size.unwrap_or(target_size),
            aesthetic_score: fields.number("aesthetic_score", 0.0, 10.0).unwrap_or(SCORE),
            negative_aesthetic_score: fields.number("negative_aesthetic_score", 0.0, 10.0).unwrap_or(NEGATIVE_SCORE),
            denoising_end: share(fields, "denoising_end"),
        })
    }
}

/// A share of the steps, between 0 and 1 and neither of them.
pub(super) fn share(fields: &mut Fields, name: &str) -> Option<f64> {
    let share = fields.number(name, 0.0, 1.0)?;
    if share > 0.0 && share < 1.0 {
        return Some(share);
    }
    fields.error(name, "out_of_range", format!("must be above 0 and below 1, not {share}"));
    None
}

/// Two whole numbers up to 65536.
fn pair(fields: &mut Fields, name: &str, min: u64) -> Option<[u32; 2]> {
    const MAX: u64 = 1 << 16;
    let value = fields.take(name)?;
    let numbers: Vec<u64> = match value.as_array() {
        Some(list) if list.len() == 2 => list.iter().filter_map(serde_json::Value::as_u64).collect(),
        _ => Vec::new(),
    };
    match numbers[..] {
        [first, second] if [first, second].iter().all(|number| (min..=MAX).contains(number)) => {
            Some([first as u32, second as u32])
        }
        [_, _] => {
            fields.error(name, "out_of_range", format!("must be two numbers between {min} and {MAX}, not {value}"));
            None
        }
        _ => fields.wrong_type(name, "a list of two whole numbers, such as [768, 512]", &value),
    }
}
