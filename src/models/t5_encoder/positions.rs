//! The biases that T5 adds to the scores of attention, which depend on the distance of two tokens.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::T5Config;
use crate::weights::Weights;

/// A bias for each bucket of distances and each head.
#[derive(Debug)]
pub(super) struct Positions {
    /// (buckets, H)
    table: Vec<Vec<f32>>,
    max_distance: usize,
    device: Device,
}

impl Positions {
    pub fn new(weights: &Weights, config: &T5Config) -> Result<Self> {
        let shape = [config.relative_attention_num_buckets, config.num_heads];
        let table = weights.tensor("relative_attention_bias.weight", &shape);
        let device = table.device().clone();
        Ok(Self {
            table: table.to_dtype(DType::F32)?.to_vec2()?,
            max_distance: config.relative_attention_max_distance,
            device,
        })
    }

    /// The bias of query i and key j for each of the H heads, (H, L, L).
    pub fn of(&self, length: usize) -> Result<Tensor> {
        let (heads, l) = (self.table.first().map_or(0, Vec::len), length as isize);
        let buckets: Vec<usize> = (1 - l..l).map(|distance| self.bucket(distance)).collect();
        let mut values = vec![0.0; heads * length * length];
        values.par_chunks_exact_mut((length * length).max(1)).enumerate().for_each(|(head, values)| {
            let of_distance: Vec<f32> = buckets.iter().map(|bucket| self.table[*bucket][head]).collect();
            for (query, values) in values.chunks_exact_mut(length).enumerate() {
                values.copy_from_slice(&of_distance[length - 1 - query..][..length]);
            }
        });
        Tensor::from_vec(values, (heads, length, length), &self.device)
    }

    /// The bucket of a key that is `distance` tokens after the query. The first half of the buckets is for keys before
    /// the query, the second half for keys after the query. In each half, the first buckets stand for one small
    /// distance each. The others stand for ranges of distances whose limits grow by a constant factor and end at
    /// `max_distance`; the last bucket also stands for all larger distances.
    fn bucket(&self, distance: isize) -> usize {
        let side = self.table.len() / 2;
        let (first, distance) = (if distance > 0 { side } else { 0 }, distance.unsigned_abs());
        let exact = side / 2;
        if distance < exact {
            return first + distance;
        }
        // In float32, like transformers: at the limit between two buckets, rounding decides.
        let growth = libm::logf(distance as f32 / exact as f32);
        let all = libm::log(self.max_distance as f64 / exact as f64) as f32;
        let further = (growth / all * (side - exact) as f32) as usize;
        first + (exact + further).min(side - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_buckets() {
        let positions = Positions { table: vec![Vec::new(); 32], max_distance: 128, device: Device::Cpu };
        for (distance, bucket) in [(0, 0), (-1, 1), (-7, 7), (-8, 8), (-11, 8), (-12, 9), (-15, 9), (-16, 10)] {
            assert_eq!(positions.bucket(distance), bucket, "{distance}");
        }
        for (distance, bucket) in [(1, 17), (7, 23), (8, 24), (31, 27), (32, 28), (90, 30), (91, 31), (5000, 31)] {
            assert_eq!(positions.bucket(distance), bucket, "{distance}");
        }
    }
}
