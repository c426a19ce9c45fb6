//! The size of a generation's pictures.

use super::{Fields, Limits, ModelCard};

/// Reads width and height in pixels from `size` (`WIDTHxHEIGHT`), or from `width` and `height`; `default` where the request
/// names neither. An error is one of the field that the request has.
pub(super) fn read(fields: &mut Fields, default: (u32, u32), card: &ModelCard, limits: &Limits) -> (u32, u32) {
    let has_size = fields.has("size");
    let (width, height) = match fields.text("size", 20) {
        Some(text) => {
            if fields.take("width").is_some() | fields.take("height").is_some() {
                fields.error("size", "conflict", "excludes width and height");
            }
            in_one(fields, &text, default, card, limits)
        }
        None => (side(fields, "width", default.0, card, limits), side(fields, "height", default.1, card, limits)),
    };
    let is_faulty = ["size", "width", "height"].into_iter().any(|name| fields.is_faulty(name));
    if u64::from(width) * u64::from(height) > limits.max_pixels && !is_faulty {
        let (name, subject) = if has_size { ("size", "must have") } else { ("width", "times height must be") };
        let detail = format!("{subject} at most {} pixels, not {width} × {height}", limits.max_pixels);
        fields.error(name, "out_of_range", detail);
    }
    (width, height)
}

fn in_one(fields: &mut Fields, text: &str, default: (u32, u32), card: &ModelCard, limits: &Limits) -> (u32, u32) {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let sides = text.split_once('x').and_then(|(width, height)| Some((number(width)?, number(height)?)));
    let Some((width, height)) = sides else {
        fields.error("size", "invalid_value", format!("must read WIDTHxHEIGHT, such as 512x768, not {text:?}"));
        return default;
    };
    let mut side = |name: &str, pixels: u64| {
        let (min, max) = (card.min_side_pixels, limits.max_side_pixels);
        let side = u32::try_from(pixels).ok().filter(|side| (min..=max).contains(side));
        let bound = match side {
            None => format!("between {min} and {max}"),
            Some(side) if !side.is_multiple_of(card.size_multiple) => format!("a multiple of {}", card.size_multiple),
            Some(side) => return Some(side),
        };
        fields.error("size", "out_of_range", format!("must have a {name} that is {bound}, not {pixels}"));
        None
    };
    let (width, height) = (side("width", width), side("height", height));
    (width.unwrap_or(default.0), height.unwrap_or(default.1))
}

fn side(fields: &mut Fields, name: &str, default: u32, card: &ModelCard, limits: &Limits) -> u32 {
    let (min, max) = (card.min_side_pixels.into(), limits.max_side_pixels.into());
    let pixels = fields.integer(name, min, max).and_then(|pixels| u32::try_from(pixels).ok()).unwrap_or(default);
    if !pixels.is_multiple_of(card.size_multiple) {
        fields.error(name, "out_of_range", format!("must be a multiple of {}, not {pixels}", card.size_multiple));
    }
    pixels
}
