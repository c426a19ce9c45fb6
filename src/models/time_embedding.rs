//! Embeddings of timesteps and other numbers: sines and cosines, and the layers after them.

use candle_core::{Device, Result, Tensor};

use super::{adapters::RowAdapters, layers::Linear};
use crate::{kernels::Kernels, weights::Weights};

/// diffusers' `TimestepEmbedding`.
#[derive(Debug)]
pub(super) struct TimestepEmbedding {
    linear_1: Linear,
    /// Projects a second condition, such as LCM's guidance scale, to the width of the input of `linear_1`. The result
    /// is added to this input.
    cond_proj: Option<Linear>,
    linear_2: Linear,
    kernels: Kernels,
}

/// diffusers' `Timesteps`: sines and cosines of a timestep (Vaswani et al. 2017, arXiv:1706.03762), with diffusers'
/// order and frequencies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sinusoids {
    pub width: usize,
    /// Whether cosines come before sines.
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
}

impl TimestepEmbedding {
    /// `width` is the width of the input, `cond_width` the width of the second condition, if there is one.
    pub fn new(weights: &Weights, width: usize, cond_width: Option<usize>, time_embed_dim: usize) -> Self {
        Self {
            linear_1: Linear::new(&weights.pp("linear_1"), width, time_embed_dim),
            cond_proj: cond_width.map(|cond| Linear::without_bias(&weights.pp("cond_proj"), cond, width)),
            linear_2: Linear::new(&weights.pp("linear_2"), time_embed_dim, time_embed_dim),
            kernels: weights.kernels(),
        }
    }

    /// An embedding without a second condition, whose output has another width than its inner vector.
    pub fn to(weights: &Weights, width: usize, inner: usize, outputs: usize) -> Self {
        Self {
            linear_1: Linear::new(&weights.pp("linear_1"), width, inner),
            cond_proj: None,
            linear_2: Linear::new(&weights.pp("linear_2"), inner, outputs),
            kernels: weights.kernels(),
        }
    }

    /// x (B, in), second condition (B, cond) → (B, E)
    pub fn forward(&self, x: &Tensor, condition: Option<&Tensor>, adapters: &RowAdapters) -> Result<Tensor> {
        let x = match (&self.cond_proj, condition) {
            (Some(projection), Some(condition)) => projection.forward_with(condition, x)?,
            _ => x.clone(),
        };
        self.linear_2.adapted(&self.kernels.silu(&self.linear_1.adapted(&x, adapters)?)?, adapters)
    }
}

impl Sinusoids {
    /// `rows` rows of values → (rows, values of a row · width)
    pub fn forward(self, values: &[f32], rows: usize, device: &Device) -> Result<Tensor> {
        let sinusoids = values.iter().flat_map(|value| self.of(*value)).collect::<Vec<f32>>();
        Tensor::from_vec(sinusoids, (rows, values.len() / rows.max(1) * self.width), device)
    }

    /// The sines and cosines of one value, which may have a fraction. They are computed in float32 on the host, as in
    /// diffusers.
    fn of(self, t: f32) -> Vec<f32> {
        let half = self.width / 2;
        let angle = |i: usize| {
            let exponent = -10_000f32.ln() * i as f32 / (half as f64 - self.freq_shift) as f32;
            t * libm::expf(exponent)
        };
        let sines = (0..half).map(|i| libm::sinf(angle(i)));
        let cosines = (0..half).map(|i| libm::cosf(angle(i)));
        let mut values: Vec<f32> =
            if self.flip_sin_to_cos { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
        values.resize(self.width, 0.0); // An odd width ends in a zero.
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_frequencies() {
        let of = |width, flip_sin_to_cos, freq_shift, t| Sinusoids { width, flip_sin_to_cos, freq_shift }.of(t);
        assert_eq!(of(4, true, 0.0, 0.0), [1., 1., 0., 0.]);
        assert_eq!(of(5, false, 0.0, 0.0), [0., 0., 1., 1., 0.]);
        let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-5, "{a} {b}");
        close(of(4, false, 0.0, 7.5)[1], (7.5f64 * 0.01).sin());
        close(of(4, false, 1.0, 7.5)[1], (7.5f64 * 1e-4).sin());
    }
}
