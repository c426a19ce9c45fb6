//! The formats in which files store the numbers of weights, and their exact conversion to float32.

use super::simd::vectorized;

mod blocks;
mod floats;
mod k_blocks;

/// How numbers are stored: as floats, or in blocks of quantized numbers with common scales. The block formats come from
/// ggml. In them, a number is an integer of a few bits times a scale of its block, perhaps plus a minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    F64,
    F32,
    F16,
    Bf16,
    /// 4 bits of exponent and 3 of mantissa, without infinities (Micikevicius et al. 2022, arXiv:2209.05433).
    F8E4m3,
    /// The upper byte of a float16: 5 bits of exponent and 2 of mantissa.
    F8E5m2,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    /// The number of numbers in a block, and the block's length in bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Format::F64 => (1, 8),
            Format::F32 => (1, 4),
            Format::F16 | Format::Bf16 => (1, 2),
            Format::F8E4m3 | Format::F8E5m2 => (1, 1),
            Format::Q4_0 => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q5_0 => (32, 22),
            Format::Q5_1 => (32, 24),
            Format::Q8_0 => (32, 34),
            Format::Q2K => (256, 84),
            Format::Q3K => (256, 110),
            Format::Q4K => (256, 144),
            Format::Q5K => (256, 176),
            Format::Q6K => (256, 210),
        }
    }

    /// The bytes of this many numbers in whole blocks; `None` if the last block is not whole, or if there are too many.
    pub fn bytes(self, numbers: usize) -> Option<usize> {
        let (of_block, bytes) = self.block();
        numbers.is_multiple_of(of_block).then(|| (numbers / of_block).checked_mul(bytes)).flatten()
    }

    /// Whether a number takes fewer bits than a float32.
    pub fn is_narrow(self) -> bool {
        !matches!(self, Format::F64 | Format::F32)
    }

    /// The numbers of whole blocks, as float32: exact, except for float64, which is rounded. Blocks of quantized
    /// numbers are computed as in ggml, in float32.
    pub fn widened(self, bytes: &[u8]) -> Vec<f32> {
        let (numbers, length) = self.block();
        let mut values = vec![0.0; bytes.len() / length * numbers];
        self.widen(bytes, &mut values);
        values
    }

    /// As [`Format::widened`]. As many blocks are converted as `bytes` and `values` both have room for.
    pub fn widen(self, bytes: &[u8], values: &mut [f32]) {
        self.widen_lanes::<1>(bytes.as_chunks().0, values.as_chunks_mut().0);
    }

    /// Converts `L` sequences of blocks at the same time. Number i of the sequences becomes `values[i]`, so that a
    /// vector unit converts number i of all sequences at once. The sequences alternate: float by float if the format is
    /// one of floats, otherwise byte by byte.
    pub(super) fn widen_lanes<const L: usize>(self, bytes: &[[u8; L]], values: &mut [[f32; L]]) {
        // One loop for each format, so that the compiler can use vector instructions for each of them. The loops do not
        // call `for_each`, whose code the compiler would share between vector units and so write for the oldest.
        macro_rules! floats {
            ($convert:path) => {
                vectorized(
                    #[inline(always)]
                    || {
                        for (number, value) in bytes.as_flattened().as_chunks().0.iter().zip(values.as_flattened_mut())
                        {
                            *value = $convert(*number);
                        }
                    },
                )
            };
        }
        macro_rules! blocks {
            ($convert:path) => {{
                let (numbers, length) = self.block();
                vectorized(
                    #[inline(always)]
                    || {
                        for (block, values) in bytes.chunks_exact(length).zip(values.chunks_exact_mut(numbers)) {
                            $convert(block, values);
                        }
                    },
                )
            }};
        }
        match self {
            Format::F64 => floats!(floats::f64),
            Format::F32 => floats!(f32::from_le_bytes),
            Format::F16 => floats!(floats::f16),
            Format::Bf16 => floats!(floats::bf16),
            Format::F8E4m3 => floats!(floats::e4m3),
            Format::F8E5m2 => floats!(floats::e5m2),
            Format::Q4_0 => blocks!(blocks::q4_0),
            Format::Q4_1 => blocks!(blocks::q4_1),
            Format::Q5_0 => blocks!(blocks::q5_0),
            Format::Q5_1 => blocks!(blocks::q5_1),
            Format::Q8_0 => blocks!(blocks::q8_0),
            Format::Q2K => blocks!(k_blocks::q2_k),
            Format::Q3K => blocks!(k_blocks::q3_k),
            Format::Q4K => blocks!(k_blocks::q4_k),
            Format::Q5K => blocks!(k_blocks::q5_k),
            Format::Q6K => blocks!(k_blocks::q6_k),
        }
    }

    /// The bytes of alternating sequences that stay together in [`Format::widen_lanes`].
    pub(super) fn unit(self) -> usize {
        match self.block() {
            (1, length) => length,
            _ => 1,
        }
    }
}

/// `L` values that are computed at the same time.
#[inline(always)]
fn lanes<T, const L: usize>(value: impl Fn(usize) -> T) -> [T; L] {
    std::array::from_fn(value)
}

/// Rows of `L` numbers that [`each`] converts in one loop.
const ROWS: usize = 16;

/// values = number(bytes, scales), element by element, with two bytes for each value and two scales for each lane. The
/// number of rows is a multiple of 16.
///
/// One long loop over rows and lanes: the compiler would unroll a loop over lanes alone before it looks for vectors.
#[inline(always)]
fn each<const L: usize>(
    values: &mut [[f32; L]],
    bytes: [&[[u8; L]]; 2],
    scales: [[f32; L]; 2],
    number: impl Fn([u8; 2], [f32; 2]) -> f32,
) {
    let scales = scales.map(|scales| [scales; ROWS]);
    let [a, b] = bytes.map(|bytes| bytes.as_chunks::<ROWS>().0);
    for ((values, a), b) in values.as_chunks_mut::<ROWS>().0.iter_mut().zip(a).zip(b) {
        let bytes = a.as_flattened().iter().zip(b.as_flattened());
        let scales = scales[0].as_flattened().iter().zip(scales[1].as_flattened());
        for ((value, (a, b)), (c, d)) in values.as_flattened_mut().iter_mut().zip(bytes).zip(scales) {
            *value = number([*a, *b], [*c, *d]);
        }
    }
}

#[cfg(test)]
mod tests;
