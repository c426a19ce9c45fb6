//! Conversion of pictures and masks to the inputs of networks (diffusers' `VaeImageProcessor`).

use crate::imaging::{GreyImage, RgbImage, resize};

/// Maximum number of pixels of a reference picture.
const MOST_PIXELS: u32 = 1024 * 1024;

/// Resizes the picture to (H, W) and returns its pixels as (3, H, W) in [-1, 1].
pub(super) fn normalized(picture: &RgbImage, size: [usize; 2]) -> Vec<f32> {
    planes(&at(picture, size), |level| 2.0 * (f32::from(level) / 255.0) - 1.0)
}

/// Resizes the picture to (H, W) and returns its pixels as (3, H, W) in [0, 1].
pub(super) fn unit(picture: &RgbImage, size: [usize; 2]) -> Vec<f32> {
    planes(&at(picture, size), |level| f32::from(level) / 255.0)
}

/// Resizes the mask to (H, W). Pixels are 1 where the mask is at least half white, otherwise 0.
pub(super) fn binarized(mask: &GreyImage, [height, width]: [usize; 2]) -> Vec<f32> {
    let levels = resize(mask, width as u32, height as u32).pixels;
    levels.into_iter().map(|level| if f32::from(level) / 255.0 < 0.5 { 0.0 } else { 1.0 }).collect()
}

/// Downsamples a mask (H, W) to (h, w): takes the first of every `every` pixels in each direction, like torch's nearest
/// `interpolate`.
pub(super) fn sampled(mask: &[f32], [_, width]: [usize; 2], every: usize) -> Vec<f32> {
    let lines = mask.chunks_exact(width).step_by(every);
    lines.flat_map(|line| line.iter().step_by(every).copied()).collect()
}

/// Resizes the picture to (H, W).
pub(super) fn at(picture: &RgbImage, [height, width]: [usize; 2]) -> RgbImage {
    resize(picture, width as u32, height as u32)
}

/// Downsamples a mask (H, W) to (h, w) by torch's bilinear `interpolate`: the mean of the four pixels around the middle
/// of each square of `every` × `every` pixels, where `every` is even.
pub(super) fn halfway(mask: &[f32], [height, width]: [usize; 2], every: usize) -> Vec<f32> {
    let center = |i: usize| i * every + (every / 2).saturating_sub(1);
    let mean = |y: usize, x: usize| {
        let at = |dy: usize, dx: usize| mask[(y + dy).min(height - 1) * width + (x + dx).min(width - 1)];
        (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0
    };
    let columns = width / every;
    (0..height / every * columns).map(|i| mean(center(i / columns), center(i % columns))).collect()
}

/// The size (H, W) in which the network sees a reference picture of (width, height) pixels: scaled down as by
/// `bounded`, then cropped as by `middle`.
pub fn reference_size((width, height): (u32, u32), multiple: u32) -> [usize; 2] {
    let [width, height] = bounded_size(width, height);
    let [width, height] = inner_size(width.max(multiple), height.max(multiple), multiple);
    [height as usize, width as usize]
}

/// The picture, scaled down to at most [`MOST_PIXELS`].
pub(super) fn bounded(picture: RgbImage) -> RgbImage {
    match bounded_size(picture.width, picture.height) {
        size if size == [picture.width, picture.height] => picture,
        [width, height] => resize(&picture, width, height),
    }
}

/// (width, height), scaled down to at most [`MOST_PIXELS`].
fn bounded_size(width: u32, height: u32) -> [u32; 2] {
    if u64::from(width) * u64::from(height) <= u64::from(MOST_PIXELS) {
        return [width, height];
    }
    let scale = libm::sqrt(f64::from(MOST_PIXELS) / (f64::from(width) * f64::from(height)));
    [width, height].map(|side| ((f64::from(side) * scale) as u32).max(1))
}

/// The largest multiples of `multiple` within (width, height).
fn inner_size(width: u32, height: u32, multiple: u32) -> [u32; 2] {
    [width, height].map(|side| side - side % multiple)
}

/// The pixels of the middle of a picture as (3, H, W) in [-1, 1], and its size (H, W): the largest sides that are
/// multiples of `multiple`. A side that is shorter than `multiple` is stretched to `multiple` first.
pub(super) fn middle(picture: &RgbImage, multiple: u32) -> (Vec<f32>, [usize; 2]) {
    let (width, height) = (picture.width.max(multiple), picture.height.max(multiple));
    let whole = at(picture, [height as usize, width as usize]);
    let [inner_width, inner_height] = inner_size(width, height, multiple);
    let place = [(width - inner_width) / 2, (height - inner_height) / 2, inner_width, inner_height];
    let size = [inner_height, inner_width].map(|side| side as usize);
    (normalized(&whole.cropped(place), size), size)
}

/// The pixels as (3, H, W), each level converted by `value`.
fn planes(picture: &RgbImage, value: impl Fn(u8) -> f32) -> Vec<f32> {
    let plane = |channel: usize| picture.pixels.iter().skip(channel).step_by(3).map(|level| value(*level));
    (0..3).flat_map(plane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_become_planes() {
        let picture = RgbImage { width: 2, height: 1, pixels: vec![0, 255, 51, 255, 0, 102] };
        assert_eq!(normalized(&picture, [1, 2]), [-1.0, 1.0, 1.0, -1.0, -0.6, 2.0 * 0.4 - 1.0]);
    }

    #[test]
    fn a_mask_is_white_from_the_middle_on_and_sampled_from_the_corner() {
        let mask = GreyImage { width: 4, height: 2, pixels: vec![127, 128, 0, 255, 255, 255, 255, 255] };
        let binary = binarized(&mask, [2, 4]);
        assert_eq!(binary, [0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(sampled(&binary, [2, 4], 2), [0.0, 0.0]);
    }

    #[test]
    fn the_middle_of_a_picture_is_cut_out() {
        let pixels = (0..3 * 37 * 18).map(|i| (i / 3 % 37) as u8).collect();
        let (pixels, size) = middle(&RgbImage { width: 37, height: 18, pixels }, 16);
        assert_eq!((size, pixels.len()), ([16, 32], 3 * 16 * 32));
        assert_eq!(pixels[0], 2.0 * (2.0 / 255.0) - 1.0, "two columns are left out on the left, three on the right");
        let (_, size) = middle(&RgbImage { width: 5, height: 40, pixels: vec![7; 3 * 200] }, 16);
        assert_eq!(size, [32, 16]);
    }

    #[test]
    fn a_mask_is_the_mean_around_the_middle_of_each_square() {
        let mut mask = vec![0.0; 4 * 8];
        mask[8 + 1] = 1.0; // in the middle of the first square of 4 × 4 pixels
        mask[7] = 1.0; // in the corner of the second one
        assert_eq!(halfway(&mask, [4, 8], 4), [0.25, 0.0]);
    }

    #[test]
    fn a_reference_has_at_most_a_million_pixels() {
        let picture = |width, height| RgbImage { width, height, pixels: vec![0; (3 * width * height) as usize] };
        let large = bounded(picture(2048, 1024));
        assert_eq!((large.width, large.height), (1448, 724));
        assert_eq!(bounded(picture(1024, 1024)).width, 1024);
    }
}
