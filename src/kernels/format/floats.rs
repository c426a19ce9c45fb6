//! Floats of other widths. Every function converts one number in each of `L` lanes.

use super::lanes;

#[inline(always)]
pub(super) fn f64<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    values[0] = lanes(|l| f64::from_le_bytes(std::array::from_fn(|i| bytes[i][l])) as f32);
}

#[inline(always)]
pub(super) fn f32<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    values[0] = lanes(|l| f32::from_le_bytes(std::array::from_fn(|i| bytes[i][l])));
}

#[inline(always)]
pub(super) fn f16<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    values[0] = half(bytes);
}

#[inline(always)]
pub(super) fn bf16<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let (low, high) = (bytes[0], bytes[1]);
    values[0] = lanes(|l| f32::from_bits(u32::from(low[l]) << 16 | u32::from(high[l]) << 24));
}

#[inline(always)]
pub(super) fn e4m3<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let bytes = bytes[0];
    values[0] = lanes(|l| {
        let byte = u32::from(bytes[l]);
        // The largest exponent is an ordinary one, except in the one pattern that is not a number.
        let value = small::<4>((byte & 0x7f) << 20);
        let bits = if byte & 0x7f == 0x7f { NAN } else { value.to_bits() };
        f32::from_bits(bits | (byte & 0x80) << 24)
    });
}

#[inline(always)]
pub(super) fn e5m2<const L: usize>(bytes: &[[u8; L]], values: &mut [[f32; L]]) {
    let bytes = bytes[0];
    values[0] = lanes(|l| half_of(u32::from(bytes[l]) << 8));
}

/// The float16 numbers whose low and high bytes are the first two of `bytes`.
#[inline(always)]
pub(super) fn half<const L: usize>(bytes: &[[u8; L]]) -> [f32; L] {
    let (low, high) = (bytes[0], bytes[1]);
    lanes(|l| half_of(u32::from(low[l]) | u32::from(high[l]) << 8))
}

/// The float32 of a float16's bits, without branches.
#[inline(always)]
fn half_of(bits: u32) -> f32 {
    let size = (bits & 0x7fff) << 13;
    let value = small::<5>(size).to_bits();
    // The largest exponent stands for infinity and for what is no number.
    let bits_of = if size >= 0x1f << 23 { size | 0xff << 23 } else { value };
    f32::from_bits(bits_of | (bits & 0x8000) << 16)
}

/// A number without a sign whose exponent has `E` bits. `bits` are shifted so that the mantissa is where a float32 has
/// its mantissa. The largest exponent is taken as an ordinary one.
#[inline(always)]
fn small<const E: u32>(bits: u32) -> f32 {
    // What a float32's exponent has in addition to an exponent of E bits.
    let bias = 127 - ((1 << (E - 1)) - 1);
    // Numbers whose exponent is zero have no implicit leading one. They are computed as the difference of two ordinary
    // numbers, because arithmetic on float32's own such numbers is slow.
    let tiny = f32::from_bits(bits + ((bias + 1) << 23)) - f32::from_bits((bias + 1) << 23);
    let plain = f32::from_bits(bits + (bias << 23));
    if bits < 1 << 23 { tiny } else { plain }
}

/// The bits of a float32 that is no number.
const NAN: u32 = 0x7fc0_0000;
