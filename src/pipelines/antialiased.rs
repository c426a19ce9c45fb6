//! Resizes a picture for CLIP's encoder as Stable Video Diffusion does (diffusers' `_resize_with_antialiasing`): blurs
//! it by a Gaussian, then interpolates it bicubically.

use crate::imaging::Pixels;

/// The side of the pictures that the encoder of Stable Video Diffusion sees.
pub const CLIP_SIDE: usize = 224;

/// The picture as pixels (3, side, side) in [0, 1], or slightly beyond. An empty picture becomes black.
pub(super) fn antialiased(picture: &Pixels<3>, side: usize) -> Vec<f32> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    if width == 0 || height == 0 {
        return vec![0.0; 3 * side * side];
    }
    let (columns, lines) = (taps(width, side), taps(height, side));
    // Each line of the picture at its new width, (H, side, 3).
    let narrow: Vec<f64> = picture
        .pixels
        .chunks_exact(3 * width)
        .flat_map(|line| columns.iter().flat_map(move |taps| (0..3).map(move |channel| of_line(line, taps, channel))))
        .collect();
    let level = |channel: usize, y: usize, x: usize| -> f32 {
        let sum: f64 = lines[y].iter().map(|(at, weight)| weight * narrow[(at * side + x) * 3 + channel]).sum();
        (sum / 255.0) as f32
    };
    let places = (0..3).flat_map(|channel| (0..side * side).map(move |i| (channel, i / side, i % side)));
    places.map(|(channel, y, x)| level(channel, y, x)).collect()
}

/// Pixels of a line with their weights in one new pixel.
type Taps = Vec<(usize, f64)>;

fn of_line(line: &[u8], taps: &Taps, channel: usize) -> f64 {
    taps.iter().map(|(at, weight)| weight * f64::from(line[3 * at + channel])).sum()
}

/// For each of the `to` pixels of a new line: the pixels of the old line, which has `from` pixels, from which it is
/// computed. Blur and interpolation are sums with weights, so the weights of both together are sums of products.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let blur = gaussian(from, to);
    let reach = blur.len() / 2;
    let step = if to > 1 { (from - 1) as f64 / (to - 1) as f64 } else { 0.0 };
    let of = |i: usize| {
        let at = step * i as f64;
        let first = at.floor();
        let mut weights = std::collections::BTreeMap::<usize, f64>::new();
        for (k, share) in cubic(at - first).into_iter().enumerate() {
            let center = clamped(first as i64 + k as i64 - 1, from);
            for (j, blurred) in blur.iter().enumerate() {
                let source = reflected(center as i64 + j as i64 - reach as i64, from);
                *weights.entry(source).or_default() += share * blurred;
            }
        }
        weights.into_iter().filter(|(_, weight)| *weight != 0.0).collect()
    };
    (0..to).map(of).collect()
}

/// The weights of the blur; their number is odd.
fn gaussian(from: usize, to: usize) -> Vec<f64> {
    let sigma = ((from as f64 / to as f64 - 1.0) / 2.0).max(0.001);
    let length = (4.0 * sigma).max(3.0) as usize;
    let length = if length.is_multiple_of(2) { length + 1 } else { length };
    let weight = |i: usize| {
        let x = i as f64 - (length / 2) as f64;
        libm::exp(-x * x / (2.0 * sigma * sigma))
    };
    let weights: Vec<f64> = (0..length).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The weights of the four pixels around a place that is `t` behind the second of them (Keys 1981, with a = −0.75).
fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// A place beyond the ends of a line is the end.
fn clamped(at: i64, length: usize) -> usize {
    at.clamp(0, length as i64 - 1) as usize
}

/// A place beyond the ends of a line is mirrored at the end.
fn reflected(at: i64, length: usize) -> usize {
    let last = length as i64 - 1;
    if last == 0 {
        return 0;
    }
    let at = at.rem_euclid(2 * last);
    at.min(2 * last - at) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::RgbImage;

    #[test]
    fn weights_add_up_to_one_and_a_line_of_the_same_length_stays() {
        for (from, to) in [(1, 224), (2, 224), (64, 224), (224, 224), (1024, 224), (9000, 224), (5, 1)] {
            for taps in taps(from, to) {
                let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-9, "{from} to {to}: {sum}");
                assert!(taps.iter().all(|(at, _)| *at < from));
            }
        }
        assert!(taps(224, 224).into_iter().enumerate().all(|(i, taps)| taps == [(i, 1.0)]));
        assert_eq!(gaussian(1024, 224).len(), 7);
    }

    #[test]
    fn places_beyond_a_line_are_mirrored() {
        assert_eq!([-2, -1, 0, 3, 4, 5].map(|at| reflected(at, 4)), [2, 1, 0, 3, 2, 1]);
        assert_eq!(reflected(-1, 1), 0);
    }

    #[test]
    fn a_picture_of_one_color_keeps_it() {
        let picture = RgbImage { width: 30, height: 500, pixels: [51, 0, 255].repeat(30 * 500) };
        let made = antialiased(&picture, 8);
        for (channel, level) in [0.2, 0.0, 1.0].into_iter().enumerate() {
            assert!(made[channel * 64..][..64].iter().all(|made| (made - level).abs() < 1e-6));
        }
    }
}
