//! Conversion of pictures and masks to the inputs of networks (diffusers' `VaeImageProcessor`).

use crate::imaging::{GreyImage, RgbImage, resize};

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
}
