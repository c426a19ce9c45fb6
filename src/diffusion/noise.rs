//! Gaussian noise as `torch.randn` draws it on the CPU; nothing else in the program draws random numbers.

use super::brownian::BrownianNoise;
use super::generator::Generator;
use super::latents::Latents;

/// The noise of one run: a function of its seeds and of the order of its draws, of nothing else.
#[derive(Debug, Clone)]
pub struct Noise(Generators);

#[derive(Debug, Clone)]
enum Generators {
    Batch(Generator),
    PerImage(Vec<Generator>),
}

impl Noise {
    /// One generator per image, as diffusers' list of generators: image `i` is what it would be alone with `seeds[i]`.
    pub fn per_image(seeds: &[u64]) -> Noise {
        Noise(Generators::PerImage(seeds.iter().copied().map(Generator::new).collect()))
    }

    /// One generator draws for all images of the run at once (`seed_mode: batch`).
    pub fn batch(seed: u64) -> Noise {
        Noise(Generators::Batch(Generator::new(seed)))
    }

    /// `(B, C, h, w)` values from N(0, 1).  With a generator per image, row `b` is drawn by generator `b`; rows beyond
    /// the seeds begin again with the first generator, no seeds at all leave the noise zero.
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

    /// Noise for steps between the levels `min` and `max`, of paths that begin from `seed`, else from the seeds of the
    /// generators; with a generator per image each image has a path of its own, as it would have alone.
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
