//! Brownian motion whose increments can be read in any order; the same interval always gives the same increment.

use super::generator::Generator;
use super::latents::Latents;
use super::seed_sequence::SeedSequence;

/// diffusers' `BrownianTreeNoiseSampler`: noise for the steps of one run. All noise of a seed comes from one Brownian
/// path, whose time is the noise level. Each image has a seed, or all images together have one.
pub(super) struct BrownianNoise {
    shape: [usize; 4],
    paths: Vec<BrownianPath>,
}

impl BrownianNoise {
    /// Paths for latents of `shape` `(B, C, h, w)` and noise levels from `min` to `max`: one path per seed. `seeds` has
    /// one seed for all images together, or one per image.
    pub(super) fn new(seeds: &[u64], shape: [usize; 4], min: f64, max: f64) -> BrownianNoise {
        let values = shape.iter().product::<usize>() / seeds.len().max(1);
        let paths = seeds.iter().map(|seed| BrownianPath::new(*seed, min, max, values)).collect();
        BrownianNoise { shape, paths }
    }

    /// Unit noise for the step from noise level `from` to noise level `to`.
    pub(super) fn between(&self, from: f64, to: f64) -> Latents {
        let scale = (to as f32 - from as f32).abs().sqrt() * if from < to { 1.0 } else { -1.0 };
        Latents::filled(self.shape, |data| {
            let len = (data.len() / self.paths.len().max(1)).max(1);
            for (values, path) in data.chunks_mut(len).zip(&self.paths) {
                let increment = path.increment(from.min(to), from.max(to));
                values.iter_mut().zip(increment).for_each(|(value, w)| *value = w / scale);
            }
        })
    }
}

/// A Brownian path. It reproduces `torchsde.BrownianInterval` as a halving tree with a tolerance of 1e-6 (Li et al.
/// 2020, arXiv:2001.01328). The increment over an interval is the sum of the increments over its halves. The noise that
/// divides the increment between the halves comes from a generator whose seed is made of the seed of the path and the
/// position of the interval in the tree.
pub struct BrownianPath {
    seed: u64,
    whole: Interval,
    /// The increment over the whole interval.
    increment: Vec<f32>,
}

/// A node of the tree: an interval of time.
#[derive(Clone, Copy)]
struct Interval {
    start: f64,
    end: f64,
    /// Index among the nodes of the same depth, from 0.
    key: u64,
    depth: u64,
}

impl BrownianPath {
    /// `values` independent Brownian motions between the times `start` and `end`.
    pub fn new(seed: u64, start: f64, end: f64, values: usize) -> BrownianPath {
        let scale = libm::sqrt(end - start) as f32;
        let increment = randn(SeedSequence::new(seed, &[]), values).into_iter().map(|z| z * scale).collect();
        let whole = Interval { start: rounded(start), end: rounded(end), key: 0, depth: 0 };
        BrownianPath { seed, whole, increment }
    }

    /// How far each value moves between two times. Times outside of the path are clamped to its ends.
    pub fn increment(&self, from: f64, to: f64) -> Vec<f32> {
        let held = |time: f64| rounded(time).max(self.whole.start).min(self.whole.end);
        let mut sum = vec![0.0; self.increment.len()];
        let (from, to) = (held(from), held(to));
        if from < to {
            self.add(self.whole, &self.increment, (from, to), &mut sum);
        }
        sum
    }

    /// Adds to `sum` the increment over the part of `interval` between `from` and `to`. `increment` is the increment
    /// over the whole of `interval`.
    fn add(&self, interval: Interval, increment: &[f32], (from, to): (f64, f64), sum: &mut [f32]) {
        let Interval { start, end, key, depth } = interval;
        let midway = rounded(0.5 * (end + start));
        let is_whole = from <= start && to >= end;
        if is_whole || midway <= start || midway >= end {
            sum.iter_mut().zip(increment).for_each(|(sum, w)| *sum += w);
            return;
        }
        let (left, right, share) = (midway - start, end - midway, (1.0 / (end - start)) as f32);
        let deviation = libm::sqrt(left * right * (1.0 / (end - start))) as f32;
        let noise = randn(SeedSequence::new(self.seed, &[key, depth]), increment.len());
        // Brownian bridge: the left half gets its share of the increment plus noise, the right half gets the rest.
        let parted = increment.iter().zip(noise).map(|(w, z)| left as f32 * w * share + deviation * z);
        let of_left: Vec<f32> = parted.collect();
        let below = Interval { start, end: midway, key: 2 * key, depth: depth + 1 };
        if from < midway {
            self.add(below, &of_left, (from, to.min(midway)), sum);
        }
        if to > midway && right > 0.0 {
            let of_right: Vec<f32> = increment.iter().zip(&of_left).map(|(w, left)| w - left).collect();
            let above = Interval { start: midway, end, key: 2 * key + 1, depth: depth + 1 };
            self.add(above, &of_right, (from.max(midway), to), sum);
        }
    }
}

fn randn(seeds: SeedSequence, values: usize) -> Vec<f32> {
    let mut noise = vec![0.0; values];
    Generator::new(seeds.first().into()).fill_randn(&mut noise);
    noise
}

/// Rounds to six decimals, as Python's `round` does.
fn rounded(time: f64) -> f64 {
    format!("{time:.6}").parse().unwrap_or(time)
}
