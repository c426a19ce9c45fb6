//! ggml's "K" formats: blocks of 256 quantized numbers, in groups of 16 or 32 numbers with scales of their own, which
//! are quantized, too. Every function converts one block in each of `L` lanes.

use super::{each, floats::half, lanes};

/// (d·s)·q - dmin·m, with 2 bits for q, in groups of 16 numbers. A byte of the scales has s in its lower and m in its
/// upper bits.
#[inline(always)]
pub(super) fn q2_k<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (scales, rest) = bytes.split_at(16);
    let (numbers, rest) = rest.split_at(64);
    let (d, min): ([f32; L], [f32; L]) = (half(rest), half(&rest[2..]));
    for (group, values) in values.chunks_exact_mut(16).enumerate() {
        let s = scales[group];
        let of_group = [lanes(|l| d[l] * f32::from(s[l] & 15)), lanes(|l| min[l] * f32::from(s[l] >> 4))];
        let (first, shift) = quarter(group);
        each(values, [&numbers[first..]; 2], of_group, |[q, _], [scale, least]| {
            scale * f32::from(q >> shift & 3) - least
        });
    }
}

/// (d·(s - 32))·q, with 3 bits for q, in groups of 16 numbers. If the third bit is 0, 4 is subtracted.
#[inline(always)]
pub(super) fn q3_k<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (third, rest) = bytes.split_at(32);
    let (numbers, rest) = rest.split_at(64);
    let (scales, rest) = rest.split_at(12);
    let d: [f32; L] = half(rest);
    for (group, values) in values.chunks_exact_mut(16).enumerate() {
        let (low, high) = (scales[group % 8], scales[8 + group % 4]);
        let scale: [f32; L] = lanes(|l| {
            let low = low[l] >> (group / 8 * 4) & 15;
            let high = high[l] >> (group / 4 * 2) & 3;
            d[l] * (f32::from(low | high << 4) - 32.0)
        });
        let (first, shift) = quarter(group);
        each(values, [&numbers[first..], &third[group % 2 * 16..]], [scale; 2], |[q, third], [scale, _]| {
            let lacks = 1 - i32::from(third >> (group / 2) & 1);
            scale * (i32::from(q >> shift & 3) - 4 * lacks) as f32
        });
    }
}

/// (d·s)·q - dmin·m, with 4 bits for q, in groups of 32 numbers.
#[inline(always)]
pub(super) fn q4_k<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let numbers = &bytes[16..];
    for (group, values) in values.chunks_exact_mut(32).enumerate() {
        let shift = group % 2 * 4;
        let q = &numbers[group / 2 * 32..];
        each(values, [q; 2], scales(bytes, group), |[q, _], [scale, least]| scale * f32::from(q >> shift & 15) - least);
    }
}

/// (d·s)·q - dmin·m, with 5 bits for q, in groups of 32 numbers. The fifth bits are in bytes of their own.
#[inline(always)]
pub(super) fn q5_k<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (fifth, numbers) = bytes[16..].split_at(32);
    for (group, values) in values.chunks_exact_mut(32).enumerate() {
        let shift = group % 2 * 4;
        let q = &numbers[group / 2 * 32..];
        each(values, [q, fifth], scales(bytes, group), |[q, fifth], [scale, least]| {
            scale * f32::from(q >> shift & 15 | (fifth >> group & 1) << 4) - least
        });
    }
}

/// (d·s)·(q - 32), with 6 bits for q and signed bytes s, in groups of 16 numbers. The upper two bits of the numbers are
/// in bytes of their own.
#[inline(always)]
pub(super) fn q6_k<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (lower, rest) = bytes.split_at(128);
    let (upper, rest) = rest.split_at(64);
    let (scales, rest) = rest.split_at(16);
    let d: [f32; L] = half(rest);
    for (group, values) in values.chunks_exact_mut(16).enumerate() {
        let s = scales[group];
        let scale: [f32; L] = lanes(|l| d[l] * f32::from(s[l].cast_signed()));
        // Half of the block, and which of the four lines of 32 numbers within this half.
        let (part, line) = (group / 8, group % 8 / 2);
        let column = group % 2 * 16;
        let q = [&lower[64 * part + line % 2 * 32 + column..], &upper[32 * part + column..]];
        each(values, q, [scale; 2], |[low, high], [scale, _]| {
            let (low, high) = (low >> (line / 2 * 4) & 15, high >> (2 * line) & 3);
            scale * (i32::from(low | high << 4) - 32) as f32
        });
    }
}

/// Where the numbers of a group of 16 are in bytes with four numbers of 2 bits each: the first byte, and the shift.
#[inline(always)]
fn quarter(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// d·s and dmin·m of a group. The block begins with d and dmin (float16) and twelve bytes that hold s and m of eight
/// groups with six bits each.
#[inline(always)]
fn scales<const L: usize>(bytes: &[[u8; L]], group: usize) -> [[f32; L]; 2] {
    let (d, min): ([f32; L], [f32; L]) = (half(bytes), half(&bytes[2..]));
    let packed = &bytes[4..16];
    let [s, m]: [[u8; L]; 2] = match group {
        0..4 => [lanes(|l| packed[group][l] & 63), lanes(|l| packed[group + 4][l] & 63)],
        _ => [
            lanes(|l| packed[group + 4][l] & 15 | packed[group - 4][l] >> 6 << 4),
            lanes(|l| packed[group + 4][l] >> 4 | packed[group][l] >> 6 << 4),
        ],
    };
    [lanes(|l| d[l] * f32::from(s[l])), lanes(|l| min[l] * f32::from(m[l]))]
}
