//! The operations that networks spend their time in, on contiguous channels-last activations.
//!
//! Every kernel fixes the order of each sum by the shape of one row of the batch and of the layer, so that the bytes of a
//! row depend neither on the other rows nor on the number of threads. On the CPU most are candle custom operations that
//! work in rayon's current pool; other devices get a composition of candle's own operations, which is also what the
//! tests compare with.

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
