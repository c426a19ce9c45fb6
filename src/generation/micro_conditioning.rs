//! The inputs of models with micro-conditioning, in addition to the prompt.

use serde::{Deserialize, Serialize};

use super::{Fields, field::Bounds, table};

/// The numbers that condition the U-Net (section 2.2 of Podell et al. 2023, arXiv:2307.01952). Sizes are [height,
/// width] in pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MicroConditioning {
    /// The size of the picture before it is scaled or cropped.
    pub original_size: [u32; 2],
    /// [top, left] of the crop, in pixels.
    pub crop_top_left: [u32; 2],
    pub target_size: [u32; 2],
    pub negative_original_size: [u32; 2],
    pub negative_crop_top_left: [u32; 2],
    pub negative_target_size: [u32; 2],
    /// How pleasing the picture should look, 0 to 10. Models with 5 time ids receive it instead of the target size.
    pub aesthetic_score: f64,
    pub negative_aesthetic_score: f64,
    /// The run ends after this share of the training timesteps, counted from the noisiest; between 0 and 1. The
    /// remaining noise stays in the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denoising_end: Option<f64>,
}

impl MicroConditioning {
    /// Reads the fields for a picture of this size. `has_image`: the request contains an image. `None` for models
    /// without micro-conditioning.
    pub(super) fn read(
        fields: &mut Fields,
        on: &Bounds<'_>,
        (width, height): (u32, u32),
        has_image: bool,
    ) -> Option<MicroConditioning> {
        if on.card.time_id_count == 0 {
            return None;
        }
        let whole = [height, width];
        let original_size = fields.get(&table::ORIGINAL_SIZE, on).unwrap_or(whole);
        let crop_top_left: [u32; 2] = fields.get_or_default(&table::CROP_TOP_LEFT, on);
        let target_size = fields.get(&table::TARGET_SIZE, on).unwrap_or(whole);
        let negative_original_size: Option<[u32; 2]> = fields.get(&table::NEGATIVE_ORIGINAL_SIZE, on);
        let negative_target_size: Option<[u32; 2]> = fields.get(&table::NEGATIVE_TARGET_SIZE, on);
        // As in diffusers, the default crop of the negative prompt is [0, 0] in image-to-image with a model that
        // receives an aesthetic score, and in text-to-image if the request sets a size of the negative prompt.
        // Otherwise it is the crop of the prompt.
        let apart = match (has_image, on.card.time_id_count) {
            (true, 5) => true,
            (true, _) => false,
            (false, _) => negative_original_size.is_some() || negative_target_size.is_some(),
        };
        let crop = if apart { [0, 0] } else { crop_top_left };
        Some(MicroConditioning {
            original_size,
            crop_top_left,
            target_size,
            negative_original_size: negative_original_size.unwrap_or(original_size),
            negative_crop_top_left: fields.get(&table::NEGATIVE_CROP_TOP_LEFT, on).unwrap_or(crop),
            negative_target_size: negative_target_size.unwrap_or(target_size),
            aesthetic_score: fields.get_or_default(&table::AESTHETIC_SCORE, on),
            negative_aesthetic_score: fields.get_or_default(&table::NEGATIVE_AESTHETIC_SCORE, on),
            denoising_end: fields.get(&table::DENOISING_END, on),
        })
    }
}
