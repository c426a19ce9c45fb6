//! Converts sRGB pictures to the planes of a video: luma and two chroma planes of half the width and height, in BT.709
//! with limited range (ITU-R BT.709-6, 3.2 to 3.5).

use crate::RgbImage;

/// The planes of a frame. The chroma planes have (width + 1) / 2 × (height + 1) / 2 samples.
pub(super) struct Planes {
    /// width × height samples from 16 to 235.
    pub(super) luma: Vec<u8>,
    /// Blue and red differences from 16 to 240.
    pub(super) chroma: [Vec<u8>; 2],
}

/// The number of bits of the fractions of the factors.
const BITS: u32 = 20;
/// The shares of red, green and blue in the luma.
const SHARES: [f64; 3] = [0.2126, 0.7152, 0.0722];
/// Factors of red, green and blue, for levels from 0 to 255.
const LUMA: [i32; 3] = factors(SHARES, 219.0 / 255.0);
const BLUE: [i32; 3] = factors([-SHARES[0], -SHARES[1], 1.0 - SHARES[2]], 224.0 / 255.0 / (2.0 * (1.0 - SHARES[2])));
const RED: [i32; 3] = factors([1.0 - SHARES[0], -SHARES[1], -SHARES[2]], 224.0 / 255.0 / (2.0 * (1.0 - SHARES[0])));

/// A chroma sample is computed from the mean of its square of 2 × 2 pixels. At an odd edge, the square has fewer
/// pixels.
pub(super) fn planes(image: &RgbImage) -> Planes {
    let width = image.width as usize;
    let luma = image.pixels.chunks_exact(3).map(|pixel| sample(LUMA, sum([pixel]), 1, 16)).collect();
    let mut chroma = [const { Vec::new() }; 2];
    let lines: Vec<&[u8]> = image.pixels.chunks_exact(3 * width).collect();
    for pair in lines.chunks(2) {
        for x in (0..width).step_by(2) {
            let columns = 2.min(width - x);
            let square = pair.iter().flat_map(|line| line[3 * x..3 * (x + columns)].chunks_exact(3));
            let (sum, count) = (sum(square), (pair.len() * columns) as i32);
            chroma[0].push(sample(BLUE, sum, count, 128));
            chroma[1].push(sample(RED, sum, count, 128));
        }
    }
    Planes { luma, chroma }
}

const fn factors(of: [f64; 3], scale: f64) -> [i32; 3] {
    let scale = scale * (1 << BITS) as f64;
    [(of[0] * scale) as i32, (of[1] * scale) as i32, (of[2] * scale) as i32]
}

/// The sums of the levels of red, green and blue of some pixels.
fn sum<'a>(pixels: impl IntoIterator<Item = &'a [u8]>) -> [i32; 3] {
    let add = |sum: [i32; 3], pixel: &[u8]| [0, 1, 2].map(|channel| sum[channel] + i32::from(pixel[channel]));
    pixels.into_iter().fold([0; 3], add)
}

/// The rounded sample of the mean of `count` pixels. With at most 4 pixels, the sum is below 2³⁰.
fn sample(factors: [i32; 3], sum: [i32; 3], count: i32, zero: i32) -> u8 {
    let weighted: i32 = factors.iter().zip(sum).map(|(factor, level)| factor * level).sum();
    let unit = count << BITS;
    (zero + (weighted + unit / 2).div_euclid(unit)).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_those_of_bt_709() {
        // Levels that other programs give these colors in BT.709 with limited range.
        for (color, levels) in [
            ([0, 0, 0], [16, 128, 128]),
            ([255, 255, 255], [235, 128, 128]),
            ([255, 0, 0], [63, 102, 240]),
            ([0, 255, 0], [173, 42, 26]),
            ([0, 0, 255], [32, 240, 118]),
            ([128, 128, 128], [126, 128, 128]),
        ] {
            let image = RgbImage { width: 3, height: 3, pixels: color.repeat(9) };
            let Planes { luma, chroma: [blue, red] } = planes(&image);
            assert_eq!(luma, [levels[0]; 9], "{color:?}");
            assert_eq!((blue, red), (vec![levels[1]; 4], vec![levels[2]; 4]), "{color:?}");
        }
    }

    #[test]
    fn a_chroma_sample_is_the_mean_of_its_square() {
        let pixels = [[255, 0, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 0]].concat();
        let Planes { luma, chroma: [blue, red] } = planes(&RgbImage { width: 3, height: 2, pixels });
        assert_eq!(luma, [63, 32, 16, 235, 63, 16]);
        // The mean of red, blue, white and red, and the mean of two black pixels.
        assert_eq!((blue.len(), red.len()), (2, 2));
        assert_eq!([blue[1], red[1]], [128, 128]);
        let means = [(102 + 240 + 128 + 102) / 4, (240 + 118 + 128 + 240) / 4];
        for (sample, mean) in [blue[0], red[0]].into_iter().zip(means) {
            assert!((i32::from(sample) - mean).abs() <= 1, "{sample} for {mean}");
        }
    }
}
