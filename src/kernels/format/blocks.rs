//! Blocks of 32 quantized numbers. A block begins with a scale d (float16); in the formats that end with 1, a minimum m
//! (float16) follows. Every function converts one block in each of `L` lanes.

use super::{floats::half, lanes};

/// Numbers in half a block. Byte j of the quantized numbers has number j in its lower bits and number j + 16 in its
/// upper bits.
const HALF: usize = 16;

/// (q - 8)·d
#[inline(always)]
pub(super) fn q4_0<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let d = half(bytes);
    for j in 0..HALF {
        let q = bytes[2 + j];
        values[j] = lanes(|l| (i32::from(q[l] & 15) - 8) as f32 * d[l]);
        values[j + HALF] = lanes(|l| (i32::from(q[l] >> 4) - 8) as f32 * d[l]);
    }
}

/// q·d + m
#[inline(always)]
pub(super) fn q4_1<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (d, m) = (half(bytes), half(&bytes[2..]));
    for j in 0..HALF {
        let q = bytes[4 + j];
        values[j] = lanes(|l| f32::from(q[l] & 15) * d[l] + m[l]);
        values[j + HALF] = lanes(|l| f32::from(q[l] >> 4) * d[l] + m[l]);
    }
}

/// (q - 16)·d. The fifth bits of the numbers are in four bytes before the others.
#[inline(always)]
pub(super) fn q5_0<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let d = half(bytes);
    for j in 0..HALF {
        let q = bytes[6 + j];
        let [low, high] = fifth_bits(&bytes[2..6], j);
        values[j] = lanes(|l| (i32::from(q[l] & 15 | low[l]) - 16) as f32 * d[l]);
        values[j + HALF] = lanes(|l| (i32::from(q[l] >> 4 | high[l]) - 16) as f32 * d[l]);
    }
}

/// q·d + m, with the fifth bits as in [`q5_0`].
#[inline(always)]
pub(super) fn q5_1<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (d, m) = (half(bytes), half(&bytes[2..]));
    for j in 0..HALF {
        let q = bytes[8 + j];
        let [low, high] = fifth_bits(&bytes[4..8], j);
        values[j] = lanes(|l| f32::from(q[l] & 15 | low[l]) * d[l] + m[l]);
        values[j + HALF] = lanes(|l| f32::from(q[l] >> 4 | high[l]) * d[l] + m[l]);
    }
}

/// q·d, with signed bytes q.
#[inline(always)]
pub(super) fn q8_0<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let d = half(bytes);
    for j in 0..2 * HALF {
        let q = bytes[2 + j];
        values[j] = lanes(|l| f32::from(q[l].cast_signed()) * d[l]);
    }
}

/// The fifth bits of the numbers j and j + 16, at their place.
#[inline(always)]
fn fifth_bits<const L: usize>(bits: &[[u8; L]], j: usize) -> [[u8; L]; 2] {
    let (low, high) = (bits[j / 8], bits[2 + j / 8]);
    [lanes(|l| (low[l] >> (j % 8) & 1) << 4), lanes(|l| (high[l] >> (j % 8) & 1) << 4)]
}
