//! Lanczos and bicubic resampling, bit for bit as in Pillow, because diffusers and transformers resize pictures with
//! Pillow.

use std::f64::consts::PI;

use super::Pixels;

/// Bits of the fraction of a weight: 32, minus 8 for a level and 2 for the sum.
const PRECISION: u32 = 32 - 8 - 2;

/// A filter: the weight of an input pixel by its distance from the center.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Three lobes on each side of the center (Pillow's `LANCZOS`).
    Lanczos,
    /// Keys' cubic convolution with a = −1/2 (Pillow's `BICUBIC`).
    Bicubic,
}

impl Filter {
    /// The distance from which all weights are zero.
    fn support(self) -> f64 {
        match self {
            Filter::Lanczos => 3.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Lanczos => lanczos(x, self.support()),
            Filter::Bicubic => bicubic(x),
        }
    }
}

/// The picture at another size, by [`Filter::Lanczos`].
pub fn resize<const C: usize>(picture: &Pixels<C>, width: u32, height: u32) -> Pixels<C> {
    resize_with(picture, width, height, Filter::Lanczos)
}

/// The picture at another size (`Image.resize(size, filter)` of Pillow 13): the filter, widened when the picture
/// shrinks, is applied to rows and columns one after the other in fixed-point arithmetic.
pub fn resize_with<const C: usize>(picture: &Pixels<C>, width: u32, height: u32, filter: Filter) -> Pixels<C> {
    let rows =
        |picture: Pixels<C>| if width == picture.width { picture } else { resized_rows(&picture, width, filter) };
    let columns =
        |picture: Pixels<C>| if height == picture.height { picture } else { resized_columns(&picture, height, filter) };
    // Both passes round, so their order matters. This order equals Pillow's; it was found by experiment.
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (lines, dots) = (lost(picture.height, height), lost(picture.width, width));
    match lines > 0 && lines > 2 * dots {
        true => rows(columns(picture.clone())),
        false => columns(rows(picture.clone())),
    }
}

fn resized_rows<const C: usize>(picture: &Pixels<C>, width: u32, filter: Filter) -> Pixels<C> {
    let taps = taps(picture.width, width, filter);
    let mut pixels = Vec::with_capacity(C * width as usize * picture.height as usize);
    for line in picture.pixels.chunks_exact(C * picture.width as usize) {
        for Taps { first, weights } in &taps {
            for channel in 0..C {
                let levels = line[C * first..].iter().skip(channel).step_by(C);
                pixels.push(weighted(weights, levels));
            }
        }
    }
    Pixels { width, height: picture.height, pixels }
}

fn resized_columns<const C: usize>(picture: &Pixels<C>, height: u32, filter: Filter) -> Pixels<C> {
    let line = C * picture.width as usize;
    let mut pixels = Vec::with_capacity(line * height as usize);
    for Taps { first, weights } in taps(picture.height, height, filter) {
        for x in 0..line {
            pixels.push(weighted(&weights, picture.pixels[line * first..].iter().skip(x).step_by(line)));
        }
    }
    Pixels { width: picture.width, height, pixels }
}

fn weighted<'a>(weights: &[i32], levels: impl Iterator<Item = &'a u8>) -> u8 {
    let half = 1_i32 << (PRECISION - 1);
    let sum = weights.iter().zip(levels).fold(half, |sum, (weight, level)| sum + weight * i32::from(*level));
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The first input pixel that contributes to an output pixel, and the weights of this and the following pixels.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(from: u32, to: u32, filter: Filter) -> Vec<Taps> {
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let at = |x: u32| {
        let center = (f64::from(x) + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from as usize);
        let weights: Vec<f64> = (first..end).map(|i| filter.weight((i as f64 - center + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| {
            let weight = weight / sum * f64::from(1 << PRECISION);
            // Halves are rounded away from zero.
            (weight + 0.5_f64.copysign(weight)) as i32
        };
        Taps { first, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(at).collect()
}

fn lanczos(x: f64, support: f64) -> f64 {
    if (-support..support).contains(&x) { sinc(x) * sinc(x / support) } else { 0.0 }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { libm::sin(PI * x) / (PI * x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected pixels come from Pillow 13, for the ramp `37 i mod 251`, 5 wide and 4 high.
    #[test]
    fn small_pictures_equal_pillows() {
        let picture = Pixels::<1> { width: 5, height: 4, pixels: (0..20).map(|i| (37 * i % 251) as u8).collect() };
        for (filter, cases) in [(Filter::Lanczos, PILLOW), (Filter::Bicubic, PILLOW_BICUBIC)] {
            for (width, height, expected) in cases {
                let made = resize_with(&picture, *width, *height, filter);
                assert_eq!(made.pixels, *expected, "{filter:?}, {width} × {height}");
            }
        }
    }

    #[test]
    fn three_channels_are_three_pictures() {
        let grey = Pixels::<1> { width: 5, height: 4, pixels: (0..20).map(|i| (37 * i % 251) as u8).collect() };
        let rgb =
            Pixels::<3> { width: 5, height: 4, pixels: grey.pixels.iter().flat_map(|p| [*p, 255 - *p, 9]).collect() };
        let (grey, rgb) = (resize(&grey, 7, 3), resize(&rgb, 7, 3));
        for (one, three) in grey.pixels.iter().zip(rgb.pixels.chunks_exact(3)) {
            assert_eq!((one, 9), (&three[0], three[2]));
        }
    }

    #[test]
    fn a_uniform_picture_stays_uniform_at_any_size() {
        for (width, height) in [(1, 1), (3, 17), (64, 5), (200, 200)] {
            let picture = Pixels::<1> { width: 13, height: 11, pixels: vec![201; 143] };
            assert_eq!(resize(&picture, width, height).pixels, vec![201; (width * height) as usize]);
        }
    }

    const PILLOW: &[(u32, u32, &[u8])] = &[
        (
            7,
            4,
            &[
                0, 17, 50, 74, 98, 131, 150, 177, 228, 170, 8, 14, 72, 84, 117, 136, 166, 193, 254, 133, 0, 51, 70,
                103, 127, 151, 184, 203,
            ],
        ),
        (
            5,
            9,
            &[
                0, 8, 91, 128, 155, 24, 61, 59, 96, 143, 113, 150, 14, 51, 122, 191, 228, 13, 50, 74, 188, 225, 101,
                138, 13, 127, 164, 188, 225, 10, 79, 116, 187, 224, 88, 58, 95, 142, 179, 177, 46, 83, 110, 147, 230,
            ],
        ),
        (3, 2, &[116, 83, 92, 118, 160, 136]),
        (
            8,
            3,
            &[
                45, 69, 86, 53, 37, 71, 121, 146, 161, 192, 202, 125, 107, 140, 78, 21, 58, 69, 101, 142, 182, 201,
                171, 145,
            ],
        ),
        (2, 1, &[114, 118]),
    ];

    const PILLOW_BICUBIC: &[(u32, u32, &[u8])] = &[
        (
            7,
            4,
            &[
                0, 18, 48, 74, 100, 130, 150, 183, 220, 172, 8, 27, 64, 84, 117, 137, 167, 193, 238, 138, 4, 51, 71,
                101, 127, 153, 183, 203,
            ],
        ),
        (
            5,
            9,
            &[
                0, 20, 80, 117, 154, 22, 59, 64, 101, 141, 117, 154, 21, 58, 112, 188, 225, 12, 49, 78, 168, 205, 101,
                138, 33, 123, 160, 189, 226, 13, 89, 126, 180, 217, 84, 60, 97, 137, 174, 179, 47, 84, 121, 158, 218,
            ],
        ),
        (3, 2, &[114, 81, 96, 115, 155, 138]),
        (
            8,
            3,
            &[
                46, 66, 86, 56, 52, 81, 117, 139, 158, 180, 195, 126, 107, 139, 81, 33, 63, 78, 106, 139, 169, 191,
                169, 149,
            ],
        ),
        (2, 1, &[115, 118]),
    ];
}
