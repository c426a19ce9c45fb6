//! The operations that networks spend their time in, on contiguous channels-last activations.
//!
//! Every kernel fixes the order of each sum by the shape of one row of the batch and of the layer, so that the bytes of a
//! row depend neither on the other rows nor on the number of threads. There are two sets of them ([`Kernels`]).

#![allow(clippy::needless_range_loop, reason = "loops over fixed ranges are what the compiler unrolls into registers")]

pub mod activation;
pub mod arena;
pub mod attention;
mod block;
pub mod clamp;
pub mod conv2d;
mod cut;
mod exp;
pub mod finish;
pub mod geglu;
mod gemm;
pub mod group_norm;
mod lanes;
pub mod layer_norm;
pub mod matrix;
#[cfg(test)]
pub(crate) mod random;
mod simd;
mod softmax;
mod storage;
pub mod upsample;
pub mod winograd;

pub use simd::isa;

/// Which implementation of the operations a network is built of. Layers take it from their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Custom operations on packed weights, for the CPU alone, which work in rayon's current pool; with what 3 × 3
    /// convolutions within a network choose their algorithm by. No gradient goes through them.
    Packed(winograd::Use),
    /// Compositions of candle's own operations, for any device. Gradients go through them to the inputs.
    Reference,
}

impl Kernels {
    /// The same kernels for the ends of a network, where a convolution is to be exact to the last bits.
    pub fn exact(self) -> Kernels {
        match self {
            Kernels::Packed(_) => Kernels::Packed(winograd::Use::Off),
            Kernels::Reference => Kernels::Reference,
        }
    }
}

impl Default for Kernels {
    fn default() -> Kernels {
        Kernels::Packed(winograd::Use::default())
    }
}

#[cfg(test)]
mod tests;
