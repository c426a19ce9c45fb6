//! Compute kernels: the operations that take most of a network's time, on contiguous channels-last activations.
//!
//! Every kernel derives the order of its sums from the shapes of the layer and of one row of the batch. So the bytes of
//! a row depend neither on the other rows nor on the number of threads, except with [`Rows::Together`]. There are two
//! sets of kernels ([`Kernels`]).

#![allow(unsafe_code, reason = "vector units and rectangles shared by threads; each block has its proof")]
#![allow(clippy::needless_range_loop, reason = "loops over fixed ranges are what the compiler unrolls into registers")]

pub mod activation;
pub mod arena;
pub mod attention;
pub mod bf16;
mod block;
pub mod clamp;
pub mod conv2d;
pub mod depthwise;
mod exp;
pub mod finish;
pub mod format;
pub mod gated_silu;
pub mod geglu;
mod gemm;
mod geometry;
pub mod group_norm;
mod lanes;
pub mod layer_norm;
pub mod maps;
pub mod matrix;
pub mod modulation;
pub mod narrow;
mod partition;
pub mod precision;
pub mod random;
pub mod rms_norm;
pub mod rotary;
mod rows;
mod shifted;
mod simd;
mod softmax;
mod storage;
mod tiles;
pub mod upsample;
pub mod winograd;

pub use rows::Rows;
pub use simd::isa;

/// The set of kernels that a network uses. Each layer gets the set from the `Weights` with which it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Custom operations on packed weights, for the CPU only. They use rayon's current thread pool and have no
    /// gradients. The field decides which 3 × 3 convolutions use Winograd's algorithm.
    Packed(winograd::Use),
    /// Compositions of candle's operations, for any device. They have gradients with respect to their inputs.
    Reference(Rows),
}

impl Kernels {
    /// The reference kernels whose rows have the same bits in every batch.
    pub const REFERENCE: Kernels = Kernels::Reference(Rows::Apart);

    /// Which rows of a batch are multiplied together. Packed kernels count as [`Rows::Apart`]: they compute the sums of
    /// each row in a fixed order, however many rows they get.
    fn rows(self) -> Rows {
        match self {
            Kernels::Packed(_) => Rows::Apart,
            Kernels::Reference(rows) => rows,
        }
    }

    /// The same set without Winograd's algorithm, whose rounding errors are larger than those of a direct convolution.
    pub fn exact(self) -> Kernels {
        match self {
            Kernels::Packed(_) => Kernels::Packed(winograd::Use::Off),
            Kernels::Reference(rows) => Kernels::Reference(rows),
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
