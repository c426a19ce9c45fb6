//! Converts float16 numbers to bfloat16 numbers, with the instruction of the processor. The result has the bits of
//! [`super::Right::split`] for the same numbers in float32.

use super::tile::RightTile;
use crate::gemm::WIDTH;

/// The bytes of 16 numbers.
type Line = [[u8; WIDTH]; 2];

#[cfg(target_arch = "x86_64")]
mod instructions {
    use std::arch::x86_64::{
        __m512i, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_cvtph_ps,
        _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_srli_epi32, _mm512_storeu_si512,
    };

    use super::{Line, RightTile};

    pub fn is_available() -> bool {
        is_x86_feature_detected!("avx512f")
    }

    pub fn set(lines: &[Line], tiles: &mut [RightTile]) {
        assert!(is_available());
        // SAFETY: the processor has the instructions.
        unsafe { convert(lines, tiles) };
    }

    #[target_feature(enable = "avx512f")]
    fn convert(lines: &[Line], tiles: &mut [RightTile]) {
        let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        for (tile, lines) in tiles.iter_mut().zip(lines.chunks(2 * tile_lines())) {
            for (i, pairs) in tile.0.iter_mut().enumerate() {
                let even = lines.get(2 * i).map_or_else(|| _mm512_setzero_si512(), |line| rounded(line));
                let odd = lines.get(2 * i + 1).map_or_else(|| _mm512_setzero_si512(), |line| rounded(line));
                let both = _mm512_or_si512(_mm512_srli_epi32::<16>(even), _mm512_and_si512(odd, upper));
                // SAFETY: there is room for 16 values.
                unsafe { _mm512_storeu_si512(pairs.as_mut_ptr().cast(), both) };
            }
        }
    }

    /// The lines of pairs in a tile.
    const fn tile_lines() -> usize {
        size_of::<RightTile>() / size_of::<[u32; 16]>()
    }

    /// 16 numbers as float32, whose upper halves are the nearest bfloat16 numbers; of two equally near ones, the one with
    /// the even mantissa.
    #[target_feature(enable = "avx512f")]
    fn rounded(line: &Line) -> __m512i {
        // SAFETY: a line has 32 bytes.
        let half = unsafe { _mm256_loadu_si256(line.as_ptr().cast()) };
        let bits = _mm512_castps_si512(_mm512_cvtph_ps(half));
        let is_odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        _mm512_add_epi32(bits, _mm512_add_epi32(is_odd, _mm512_set1_epi32(0x7fff)))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod instructions {
    use super::{Line, RightTile};

    pub fn is_available() -> bool {
        false
    }

    pub fn set(_: &[Line], _: &mut [RightTile]) {
        unreachable!("the machine has no such instruction")
    }
}

pub(super) use instructions::{is_available, set};
