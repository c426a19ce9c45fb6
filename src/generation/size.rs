//! Reads the size of a generation's pictures.

use super::{
    Fields,
    field::{Bounds, Field, Integers, range},
    table::{HEIGHT, SIZE, WIDTH},
};

/// Reads width and height in pixels from `size` (`WIDTHxHEIGHT`) or from `width` and `height`. `default` is used if the
/// request has neither. Errors refer to the field that the request has.
pub(super) fn read(fields: &mut Fields, default: (u32, u32), on: &Bounds<'_>) -> (u32, u32) {
    let has_size = fields.has(SIZE.name);
    let (width, height) = match fields.text(SIZE.name, 20) {
        Some(text) => {
            if fields.take("width").is_some() | fields.take("height").is_some() {
                fields.error("size", "conflict", "excludes width and height");
            }
            in_one(fields, &text, default, on)
        }
        None => (side(fields, &WIDTH, default.0, on), side(fields, &HEIGHT, default.1, on)),
    };
    let is_faulty = ["size", "width", "height"].into_iter().any(|name| fields.is_faulty(name));
    if u64::from(width) * u64::from(height) > on.limits.max_pixels && !is_faulty {
        let (name, subject) = if has_size { ("size", "must have") } else { ("width", "times height must be") };
        let detail = format!("{subject} at most {} pixels, not {width} × {height}", on.limits.max_pixels);
        fields.error(name, "out_of_range", detail);
    }
    (width, height)
}

fn in_one(fields: &mut Fields, text: &str, default: (u32, u32), on: &Bounds<'_>) -> (u32, u32) {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let sides = text.split_once('x').and_then(|(width, height)| Some((number(width)?, number(height)?)));
    let Some((width, height)) = sides else {
        fields.error("size", "invalid_value", format!("must be WIDTHxHEIGHT, such as 512x768, not {text:?}"));
        return default;
    };
    let mut side = |field: &Field, pixels: u64| {
        let (name, Integers { min, max, multiple_of }) = (field.name, field.integers(on));
        let side = Some(pixels).filter(|side| (min..=max).contains(side));
        let bound = match side {
            None => range(min, max),
            Some(side) if !side.is_multiple_of(multiple_of) => format!("a multiple of {multiple_of}"),
            Some(side) => return u32::try_from(side).ok(),
        };
        fields.error("size", "out_of_range", format!("must have a {name} that is {bound}, not {pixels}"));
        None
    };
    let (width, height) = (side(&WIDTH, width), side(&HEIGHT, height));
    (width.unwrap_or(default.0), height.unwrap_or(default.1))
}

fn side(fields: &mut Fields, field: &Field, default: u32, on: &Bounds<'_>) -> u32 {
    fields.get(field, on).unwrap_or(default)
}
