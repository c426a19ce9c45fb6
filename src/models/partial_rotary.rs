//! Rotary position embeddings of the first channels of each head.

use candle_core::{Device, Result, Tensor};

use crate::kernels::{Kernels, rotary::Pairs};

/// The angles for the tokens of a sequence.
#[derive(Clone, Debug)]
pub(super) struct PartialRotary {
    /// (1, N, F) each, for F frequencies
    cos: Tensor,
    sin: Tensor,
    /// Channels of a head; 2·F of them are rotated.
    head: usize,
}

impl PartialRotary {
    /// `frequencies` F angles per token, for heads of at least 2·F channels.
    pub fn new(frequencies: &[f32], tokens: usize, head: usize, device: &Device) -> Result<Self> {
        let table = |of: fn(f32) -> f32| {
            let angles =
                (0..tokens).flat_map(|token| frequencies.iter().map(move |frequency| token as f32 * frequency));
            Tensor::from_vec(angles.map(of).collect::<Vec<f32>>(), (1, tokens, frequencies.len()), device)
        };
        Ok(Self { cos: table(libm::cosf)?, sin: table(libm::sinf)?, head })
    }

    /// The frequencies 10000^(−i/F) for heads of `head` channels, half of which are rotated.
    pub fn frequencies(head: usize) -> Vec<f32> {
        let count = head / 4;
        (0..count).map(|i| 1.0 / libm::pow(10_000.0, i as f64 / count as f64) as f32).collect()
    }

    /// x (B, N, H·d) → (B, N, H·d)
    pub fn rotate(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let (b, n, width) = x.dims3()?;
        let (heads, rotated) = (width / self.head, 2 * self.cos.dim(2)?);
        let split = x.reshape((b, n, heads, self.head))?;
        let first = split.narrow(3, 0, rotated)?.contiguous()?.reshape((b, n, heads * rotated))?;
        let first = kernels.rotary(&first, &self.cos, &self.sin, Pairs::Halves)?.reshape((b, n, heads, rotated))?;
        let rest = split.narrow(3, rotated, self.head - rotated)?.contiguous()?;
        Tensor::cat(&[first, rest], 3)?.reshape((b, n, width))
    }
}
