//! Cheap previews: a linear map from a latent pixel to its color.

use serde::Deserialize;

use super::{Frame, NetworkError};
use crate::diffusion::{Latents, Noise};

/// The linear map `rgb = bias + Σ_c weight[c] · latents[c]`; `rgb` is in [-1, 1].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LatentRgb {
    /// One color per latent channel.
    pub weight: Vec<[f32; 3]>,
    pub bias: [f32; 3],
}

impl LatentRgb {
    /// Maps latents (C, h, w) to a picture of w × h pixels.
    pub fn frame(&self, latents: &[f32], [c, h, w]: [usize; 3]) -> Frame {
        let plane = h * w;
        let mut pixels = Vec::with_capacity(3 * plane);
        for i in 0..plane {
            for rgb in 0..3 {
                let terms = self
                    .weight
                    .iter()
                    .take(c)
                    .enumerate()
                    .map(|(channel, weight)| weight[rgb] * latents[channel * plane + i]);
                let level = self.bias[rgb] + terms.sum::<f32>();
                pixels.push(((level / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0) as u8);
            }
        }
        Frame::picture(w, h, pixels)
    }

    /// Fits the map for a model with `c` latent channels whose folder has no map. Decodes c / 4 (at least 2, at most 8)
    /// random latents of 8 × 8 latent pixels. The decoder turns each latent pixel into a patch of the picture; the map
    /// is fitted by least squares to the mean colors of these patches. The same decoder always gives the same map.
    ///
    /// # Errors
    /// The model's decoder failed.
    pub fn fit(
        c: usize,
        decode: impl Fn(&Latents) -> Result<Vec<Frame>, NetworkError>,
    ) -> Result<LatentRgb, NetworkError> {
        const SIDE: usize = 8;
        let pictures = (c / 4).clamp(2, 8);
        let mut noise = Noise::batch(0);
        let mut normal = LeastSquares::new(c + 1);
        for _ in 0..pictures {
            let shape = [1, c, SIDE, SIDE];
            let latents = smooth(noise.draw(shape).data(), c, SIDE);
            let latents = Latents::new(shape, latents).expect("as many numbers as were drawn");
            let Frame::Picture(picture) = decode(&latents)?.swap_remove(0) else { continue };
            let width = picture.width as usize;
            let latents = latents.data();
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let mut features: Vec<f64> =
                        (0..c).map(|channel| f64::from(latents[(channel * SIDE + y) * SIDE + x])).collect();
                    features.push(1.0);
                    normal.add(&features, mean_color(&picture.pixels, width, [x, y], SIDE));
                }
            }
        }
        let solution = normal.solve();
        let rgb = |row: [f64; 3]| row.map(|v| v as f32);
        let weight = solution[..c].iter().copied().map(rgb).collect();
        Ok(LatentRgb { weight, bias: rgb(solution[c]) })
    }
}

/// Blurs white noise slightly: latents of real pictures vary slowly from pixel to pixel, and a decoder turns white
/// noise into pictures of noise, to which no map could be fitted.
fn smooth(noise: &[f32], c: usize, side: usize) -> Vec<f32> {
    let mut out = noise.to_vec();
    for channel in 0..c {
        for y in 0..side {
            for x in 0..side {
                let at = |dx: usize, dy: usize| {
                    let (x, y) = ((x + dx).min(side - 1), (y + dy).min(side - 1));
                    noise[(channel * side + y) * side + x]
                };
                out[(channel * side + y) * side + x] = (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) / 2.0;
            }
        }
    }
    out
}

/// The mean color of patch (x, y) of a square picture that is divided into `side` × `side` patches. Channels are in
/// [-1, 1].
fn mean_color(pixels: &[u8], width: usize, [x, y]: [usize; 2], side: usize) -> [f64; 3] {
    let patch = width / side;
    let mut sum = [0.0; 3];
    for py in y * patch..(y + 1) * patch {
        for px in x * patch..(x + 1) * patch {
            for (rgb, sum) in sum.iter_mut().enumerate() {
                *sum += f64::from(pixels[3 * (py * width + px) + rgb]);
            }
        }
    }
    sum.map(|sum| sum / (patch * patch).max(1) as f64 / 127.5 - 1.0)
}

/// Normal equations of a linear regression with three outputs.
struct LeastSquares {
    n: usize,
    a: Vec<f64>,
    b: Vec<[f64; 3]>,
}

impl LeastSquares {
    fn new(n: usize) -> LeastSquares {
        LeastSquares { n, a: vec![0.0; n * n], b: vec![[0.0; 3]; n] }
    }

    fn add(&mut self, features: &[f64], target: [f64; 3]) {
        for i in 0..self.n {
            for j in 0..self.n {
                self.a[i * self.n + j] += features[i] * features[j];
            }
            for (sum, value) in self.b[i].iter_mut().zip(target) {
                *sum += features[i] * value;
            }
        }
    }

    /// Solves the equations by Gaussian elimination. A small ridge on the diagonal makes the matrix regular, so no
    /// pivoting is needed.
    fn solve(mut self) -> Vec<[f64; 3]> {
        let n = self.n;
        for i in 0..n {
            self.a[i * n + i] += 1e-3;
        }
        for i in 0..n {
            for row in i + 1..n {
                let factor = self.a[row * n + i] / self.a[i * n + i];
                for column in i..n {
                    self.a[row * n + column] -= factor * self.a[i * n + column];
                }
                for rgb in 0..3 {
                    self.b[row][rgb] -= factor * self.b[i][rgb];
                }
            }
        }
        for i in (0..n).rev() {
            for rgb in 0..3 {
                let known: f64 = (i + 1..n).map(|column| self.a[i * n + column] * self.b[column][rgb]).sum();
                self.b[i][rgb] = (self.b[i][rgb] - known) / self.a[i * n + i];
            }
        }
        self.b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_find_a_known_map() {
        let mut normal = LeastSquares::new(3);
        for i in 0..20 {
            let (x, y) = (f64::from(i % 5) - 2.0, f64::from(i % 3) - 1.0);
            normal.add(&[x, y, 1.0], [2.0 * x - y + 0.5, y, 1.0 - x]);
        }
        let solution = normal.solve();
        for (row, expected) in solution.iter().zip([[2.0, 0.0, -1.0], [-1.0, 1.0, 0.0], [0.5, 0.0, 1.0]]) {
            for (value, expected) in row.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-3, "{solution:?}");
            }
        }
    }
}
