//! Gaussian noise for pictures: the same numbers as from `torch.randn` on the CPU.

use super::brownian::BrownianNoise;
use super::generator::Generator;
use super::latents::Latents;

/// The noise of one run. It depends only on the seeds and on the order in which noise is drawn.
#[derive(Debug, Clone)]
pub struct Noise(Generators);

#[derive(Debug, Clone)]
enum Generators {
    Batch(Generator),
    PerImage(Vec<Generator>),
}

impl Noise {
    /// One generator per image, as diffusers' list of generators: image `i` equals the only image of a run with
    /// `seeds[i]`.
    pub fn per_image(seeds: &[u64]) -> Noise {
        Noise(Generators::PerImage(seeds.iter().copied().map(Generator::new).collect()))
    }

    /// One generator for all images of the run together (`seed_mode: batch`).
    pub fn batch(seed: u64) -> Noise {
        Noise(Generators::Batch(Generator::new(seed)))
    }

    /// `(B, C, h, w)` values from N(0, 1). With a generator per image, generator `b` draws the noise of image `b`; if
    /// there are more images than seeds, the generators draw again in the same order. Without seeds, the noise is zero.
    pub fn draw(&mut self, shape: [usize; 4]) -> Latents {
        Latents::filled(shape, |data| match &mut self.0 {
            Generators::Batch(generator) => generator.fill_randn(data),
            Generators::PerImage(generators) => {
                let row = (data.len() / shape[0].max(1)).max(1);
                let seeds = generators.len().max(1);
                for (b, row) in data.chunks_mut(row).enumerate() {
                    if let Some(generator) = generators.get_mut(b % seeds) {
                        generator.fill_randn(row);
                    }
                }
            }
        })
    }

    /// Whether one generator draws for all images.
    pub(super) fn is_batch(&self) -> bool {
        matches!(self.0, Generators::Batch(_))
    }

    /// Brownian noise for steps between the levels `min` and `max`. The paths are seeded by `seed`, or by the seeds of
    /// the generators if `seed` is `None`. With a generator per image, each image has its own path, the same as in a
    /// run with only this image.
    pub(super) fn brownian(&self, seed: Option<u64>, shape: [usize; 4], min: f64, max: f64) -> BrownianNoise {
        let seeds: Vec<u64> = match &self.0 {
            Generators::Batch(generator) => vec![seed.unwrap_or(generator.seed)],
            Generators::PerImage(generators) => {
                let of_image = |b: usize| generators.get(b % generators.len().max(1)).map_or(0, |g| g.seed);
                (0..shape[0]).map(|b| seed.unwrap_or(of_image(b))).collect()
            }
        };
        BrownianNoise::new(&seeds, shape, min, max)
    }
}
