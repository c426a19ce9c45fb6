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
    let sharp = GreyImage { width, height, pixels: picture.pixels.chunks_exact(3).map(level).collect() };
    if blur > 0 { blurred(&sharp, blur, BAND) } else { sharp }
}

/// Pixels that are blurred at a time. The blur takes twelve bytes of memory for each pixel.
const BAND: u32 = 8 << 20;

/// The picture, blurred by a Gaussian of `blur` pixels in bands of about `band` pixels. The result equals a blur of the
/// whole picture, because each band is blurred together with all rows that reach into it.
fn blurred(sharp: &GreyImage, blur: u32, band: u32) -> GreyImage {
    let GreyImage { width, height, .. } = *sharp;
    // The filter reaches 3⅓ times its deviation. A band has at least twice as many rows as the filter reaches, because
    // with higher bands, fewer rows are blurred twice.
    let reach = 10 * blur / 3 + 4;
    let rows = (band / width.max(1)).max(2 * reach);
    let mut pixels = Vec::with_capacity(sharp.pixels.len());
    for first in (0..height).step_by(rows as usize) {
        let end = (first + rows).min(height);
        let (from, to) = (first.saturating_sub(reach), (end + reach).min(height));
        let part = sharp.cropped([0, from, width, to - from]).pixels;
        let part = GrayImage::from_raw(width, to - from, part).expect("a part has all its pixels");
        let (skipped, taken) = ((first - from) * width, (end - first) * width);
        let part = imageops::blur(&part, blur as f32).into_raw();
        pixels.extend_from_slice(&part[skipped as usize..][..taken as usize]);
    }
    GreyImage { width, height, pixels }
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
    fn a_blur_in_bands_is_the_blur_of_the_whole() {
        let (width, height) = (37, 301);
        let noise = (0..width * height).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let sharp = GreyImage { width, height, pixels: noise };
        for blur in [1, 4, 9] {
            assert_eq!(blurred(&sharp, blur, 1), blurred(&sharp, blur, u32::MAX), "{blur}");
        }
    }

    #[test]
    fn the_mask_says_which_picture_shows() {
        let (under, over) = (rgb(3, 1, &[10; 9]), rgb(3, 1, &[110; 9]));
        let mask = GreyImage { width: 3, height: 1, pixels: vec![0, 255, 51] };
        assert_eq!(composite(&under, &over, &mask).pixels, [10, 10, 10, 110, 110, 110, 30, 30, 30]);
    }
}
