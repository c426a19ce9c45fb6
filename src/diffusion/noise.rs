//! Gaussian noise as `torch.randn` draws it on the CPU; nothing else in the program draws random numbers.

use std::f32::consts::TAU;

use super::brownian::BrownianNoise;
use super::latents::Latents;
use super::mt19937::Mt19937;

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

/// `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    words: Mt19937,
    /// The second value of the last Box-Muller pair of a small draw, kept for the next small draw.
    spare: Option<f64>,
}

impl Generator {
    /// Only the low 32 bits of the seed count, as in torch.
    pub fn new(seed: u64) -> Generator {
        Generator { seed, words: Mt19937::new(seed as u32), spare: None }
    }

    /// `torch.randn(out.len())` in float32: torch has one algorithm for 16 values or more and another for fewer.
    pub fn fill_randn(&mut self, out: &mut [f32]) {
        if out.len() >= 16 {
            self.fill_blocks(out);
        } else {
            out.iter_mut().for_each(|x| *x = self.normal() as f32);
        }
    }

    fn fill_blocks(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|u| *u = self.uniform24());
        out.chunks_exact_mut(16).for_each(box_muller);
        if !out.len().is_multiple_of(16) {
            // The last 16 values are drawn afresh, over the end of a block that was finished already.
            let last = out.len() - 16;
            out[last..].iter_mut().for_each(|u| *u = self.uniform24());
            box_muller(&mut out[last..]);
        }
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform53(), self.uniform53());
        let r = libm::sqrt(-2.0 * libm::log1p(-u2));
        let theta = std::f64::consts::TAU * u1;
        self.spare = Some(r * libm::sin(theta));
        r * libm::cos(theta)
    }

    /// Uniform in `[0, 1)` with 24 bits, of one word.
    fn uniform24(&mut self) -> f32 {
        (self.words.word() & 0x00ff_ffff) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `[0, 1)` with 53 bits, of two words, the high one first.
    fn uniform53(&mut self) -> f64 {
        let (high, low) = (u64::from(self.words.word()), u64::from(self.words.word()));
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }
}

/// Sixteen uniforms become sixteen normals in place; the pairs are eight apart, as torch's vector code has them.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        let r = libm::sqrtf(-2.0 * libm::logf(1.0 - *a));
        let theta = TAU * *b;
        (*a, *b) = (r * libm::cosf(theta), r * libm::sinf(theta));
    }
}
