//! Blocks of 32 quantized numbers. A block begins with a scale d (float16); in the formats that end with 1, a minimum m
//! (float16) follows. Every function converts one block in each of `L` lanes.

use super::{each, floats::half, lanes};

/// Numbers in half a block. Byte j of the quantized numbers has number j in its lower bits and number j + 16 in its
/// upper bits.
const HALF: usize = 16;

/// (q - 8)·d
#[inline(always)]
pub(super) fn q4_0<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (d, q) = (half(bytes), [&bytes[2..]; 2]);
    let (low, high) = values.split_at_mut(HALF);
    each(low, q, [d; 2], |[q, _], [d, _]| (i32::from(q & 15) - 8) as f32 * d);
    each(high, q, [d; 2], |[q, _], [d, _]| (i32::from(q >> 4) - 8) as f32 * d);
}

/// q·d + m
#[inline(always)]
pub(super) fn q4_1<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (scales, q) = ([half(bytes), half(&bytes[2..])], [&bytes[4..]; 2]);
    let (low, high) = values.split_at_mut(HALF);
    each(low, q, scales, |[q, _], [d, m]| f32::from(q & 15) * d + m);
    each(high, q, scales, |[q, _], [d, m]| f32::from(q >> 4) * d + m);
}

/// (q - 16)·d. The fifth bits of the numbers are in four bytes before the others.
#[inline(always)]
pub(super) fn q5_0<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (d, [first, second]) = (half(bytes), fifth_bits(&bytes[2..6]));
    let (low, high) = values.split_at_mut(HALF);
    each(low, [&bytes[6..], &first], [d; 2], |[q, fifth], [d, _]| (i32::from(q & 15 | fifth) - 16) as f32 * d);
    each(high, [&bytes[6..], &second], [d; 2], |[q, fifth], [d, _]| (i32::from(q >> 4 | fifth) - 16) as f32 * d);
}

/// q·d + m, with the fifth bits as in [`q5_0`].
#[inline(always)]
pub(super) fn q5_1<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (scales, [first, second]) = ([half(bytes), half(&bytes[2..])], fifth_bits(&bytes[4..8]));
    let (low, high) = values.split_at_mut(HALF);
    each(low, [&bytes[8..], &first], scales, |[q, fifth], [d, m]| f32::from(q & 15 | fifth) * d + m);
    each(high, [&bytes[8..], &second], scales, |[q, fifth], [d, m]| f32::from(q >> 4 | fifth) * d + m);
}

/// q·d, with signed bytes q.
#[inline(always)]
pub(super) fn q8_0<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    each(values, [&bytes[2..]; 2], [half(bytes); 2], |[q, _], [d, _]| f32::from(q.cast_signed()) * d);
}

/// The fifth bits of the lower numbers and of the upper numbers, at their place.
#[inline(always)]
fn fifth_bits<const L: usize>(bits: &[[u8; L]]) -> [[[u8; L]; HALF]; 2] {
    let of = |bits: &[[u8; L]]| std::array::from_fn(|j| lanes(|l| (bits[j / 8][l] >> (j % 8) & 1) << 4));
    [of(bits), of(&bits[2..])]
}
