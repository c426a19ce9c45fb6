//! The norm γ · tanh(α · x) + β (Zhu et al. 2025, arXiv:2503.10622; diffusers' `DynamicTanh`).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::weights::Weights;

/// A layer in place of a norm, for (…, C). Each number of its output depends on one number of its input.
#[derive(Debug)]
pub(super) struct DynamicTanh {
    alpha: f32,
    gamma: Tensor,
    beta: Tensor,
}

/// The numbers that a thread computes at a time.
const CHUNK: usize = 1 << 12;

impl DynamicTanh {
    pub fn new(weights: &Weights, channels: usize) -> Self {
        let alpha: Vec<f32> = weights.tensor("alpha", &[1]).to_vec1().expect("the tensor has one dimension of floats");
        Self { alpha: alpha[0], gamma: weights.tensor("gamma", &[channels]), beta: weights.tensor("beta", &[channels]) }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let squashed = match x.device().is_cpu() {
            true => {
                let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
                let squash = |value: &mut f32| *value = libm::tanhf(self.alpha * *value);
                values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(squash));
                Tensor::from_vec(values, x.shape(), x.device())?
            }
            false => (x * f64::from(self.alpha))?.tanh()?,
        };
        squashed.broadcast_mul(&self.gamma)?.broadcast_add(&self.beta)
    }

    /// Treats each head of x (B, N, H·C) on its own.
    pub fn forward_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (b, n, width) = x.dims3()?;
        let channels = self.gamma.elem_count();
        self.forward(&x.reshape((b, n, width / channels.max(1), channels))?)?.reshape((b, n, width))
    }
}
