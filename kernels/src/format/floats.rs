//! Floats of other widths.

use super::lanes;

#[inline(always)]
pub(super) fn f64(bytes: [u8; 8]) -> f32 {
    f64::from_le_bytes(bytes) as f32
}

#[inline(always)]
pub(super) fn f16(bytes: [u8; 2]) -> f32 {
    half_of(u32::from(u16::from_le_bytes(bytes)))
}

#[inline(always)]
pub(super) fn bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

#[inline(always)]
pub(super) fn e4m3([byte]: [u8; 1]) -> f32 {
    let byte = u32::from(byte);
    // The largest exponent is an ordinary one, except in the one pattern that is not a number.
    let value = small::<4>((byte & 0x7f) << 20);
    let bits = if byte & 0x7f == 0x7f { NAN } else { value.to_bits() };
    f32::from_bits(bits | (byte & 0x80) << 24)
}

#[inline(always)]
pub(super) fn e5m2([byte]: [u8; 1]) -> f32 {
    half_of(u32::from(byte) << 8)
}

/// The float16 numbers whose low and high bytes are the first two of `bytes`, one in each of `L` lanes.
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
    // The largest exponent stands for infinity and for NaN.
    let bits_of = if size >= 0x1f << 23 { size | 0xff << 23 } else { value };
    f32::from_bits(bits_of | (bits & 0x8000) << 16)
}

/// A number without a sign whose exponent has `E` bits. `bits` are shifted so that the mantissa is where a float32 has
/// its mantissa. The largest exponent is taken as an ordinary one.
#[inline(always)]
fn small<const E: u32>(bits: u32) -> f32 {
    // The difference between the bias of a float32's exponent and the bias of an exponent of E bits.
    let bias = 127 - ((1 << (E - 1)) - 1);
    // Numbers whose exponent is zero have no implicit leading one. They are computed as the difference of two ordinary
    // numbers, because arithmetic on such numbers of float32 is slow.
    let tiny = f32::from_bits(bits + ((bias + 1) << 23)) - f32::from_bits((bias + 1) << 23);
    let plain = f32::from_bits(bits + (bias << 23));
    if bits < 1 << 23 { tiny } else { plain }
}

/// The bits of a NaN in float32.
const NAN: u32 = 0x7fc0_0000;
