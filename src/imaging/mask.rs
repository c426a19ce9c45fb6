//! Masks: white pixels may change, black pixels stay.

use image::{GrayImage, imageops};

use super::{GreyImage, RgbImage};

/// The brightness of a picture (ITU-R 601, with Pillow's fixed-point arithmetic), inverted if `invert` is true, and
/// blurred by a Gaussian of `blur` pixels.
pub fn grey(picture: &RgbImage, blur: u32, invert: bool) -> GreyImage {
    let lightness = |pixel: &[u8]| {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
    };
    let level = |pixel: &[u8]| if invert { 255 - lightness(pixel) } else { lightness(pixel) };
    let (width, height) = (picture.width, picture.height);
    let pixels: Vec<u8> = picture.pixels.chunks_exact(3).map(level).collect();
    match GrayImage::from_raw(width, height, pixels.clone()).filter(|_| blur > 0) {
        Some(sharp) => GreyImage { width, height, pixels: imageops::blur(&sharp, blur as f32).into_raw() },
        None => GreyImage { width, height, pixels },
    }
}

/// `over` where the mask is white, `under` where it is black, and a mixture in between. All three have the same size.
pub fn composite(under: &RgbImage, over: &RgbImage, mask: &GreyImage) -> RgbImage {
    let mixed = |(under, over): (&u8, &u8), share: u32| {
        ((u32::from(*over) * share + u32::from(*under) * (255 - share) + 127) / 255) as u8
    };
    let shares = mask.pixels.iter().flat_map(|share| [u32::from(*share); 3]);
    let pixels = under.pixels.iter().zip(&over.pixels).zip(shares).map(|(pair, share)| mixed(pair, share));
    RgbImage { width: under.width, height: under.height, pixels: pixels.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(width: u32, height: u32, pixels: &[u8]) -> RgbImage {
        RgbImage { width, height, pixels: pixels.to_vec() }
    }

    #[test]
    fn lightness_is_pillows() {
        // The result of Pillow's convert("L") for the same pixels.
        let picture = rgb(5, 1, &[255, 0, 0, 0, 255, 0, 0, 0, 255, 77, 77, 77, 12, 200, 99]);
        assert_eq!(grey(&picture, 0, false).pixels, [76, 150, 29, 77, 132]);
        assert_eq!(grey(&picture, 0, true).pixels, [179, 105, 226, 178, 123]);
    }

    #[test]
    fn blur_softens_an_edge_and_keeps_what_is_far_from_it() {
        let edge: Vec<u8> = (0..64).flat_map(|x| [if x < 32 { 0 } else { 255 }; 3]).collect();
        let soft = grey(&rgb(64, 1, &edge), 4, false).pixels;
        assert!(soft[..8].iter().all(|level| *level == 0) && soft[56..].iter().all(|level| *level == 255));
        assert!(soft.is_sorted() && (100..=155).contains(&soft[31]), "{soft:?}");
    }

    #[test]
    fn the_mask_says_which_picture_shows() {
        let (under, over) = (rgb(3, 1, &[10; 9]), rgb(3, 1, &[110; 9]));
        let mask = GreyImage { width: 3, height: 1, pixels: vec![0, 255, 51] };
        assert_eq!(composite(&under, &over, &mask).pixels, [10, 10, 10, 110, 110, 110, 30, 30, 30]);
    }
}
