//! The bits of a payload as code bits, and back: a check of 32 bits and a convolutional code of rate 1/2.

use super::{Payload, trellis};

/// Bits of the payload and its check.
const MESSAGE_BITS: usize = 64 + 32;
/// Bits of the code.
pub(super) const CODE_BITS: usize = 2 * MESSAGE_BITS;

/// The code bits of a payload.
pub(super) fn encode(payload: Payload) -> Vec<bool> {
    trellis::encode(&message(payload))
}

/// A payload whose check is right, and the number of code bits that were wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub payload: Payload,
    pub corrected: u32,
}

/// The payload of the most probable code word, if its check is right. A positive value of `soft` means the bit 0, and
/// a larger distance from 0 more certainty.
pub(super) fn decode(soft: &[f32]) -> Option<Decoded> {
    let bits = trellis::decode(soft);
    let payload = Payload(bits[..64].iter().fold(0, |bits, bit| bits << 1 | u64::from(*bit)));
    if bits != message(payload) {
        return None;
    }
    let wrong = trellis::encode(&bits).iter().zip(soft).filter(|(bit, soft)| **bit == (**soft > 0.0)).count();
    Some(Decoded { payload, corrected: wrong as u32 })
}

/// The payload from its highest bit to its lowest, followed by its check.
fn message(payload: Payload) -> Vec<bool> {
    let bits = |value: u64, count: u32| (0..count).rev().map(move |bit| value >> bit & 1 == 1);
    bits(payload.0, 64).chain(bits(check(payload).into(), 32)).collect()
}

/// A cyclic redundancy check of the payload's eight bytes, with Castagnoli's polynomial, from the highest bit on.
fn check(payload: Payload) -> u32 {
    let shifted = |check: u32| if check >> 31 == 1 { check << 1 ^ 0x1edc_6f41 } else { check << 1 };
    let with_byte = |check: u32, byte: u8| (0..8).fold(check ^ u32::from(byte) << 24, |check, _| shifted(check));
    !payload.0.to_be_bytes().into_iter().fold(u32::MAX, with_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_thirty_of_192_bits_wrong_is_decoded() {
        let payload = Payload(0x0123_4567_89ab_cdef);
        let mut soft: Vec<f32> = encode(payload).iter().map(|bit| if *bit { -1.0 } else { 1.0 }).collect();
        assert_eq!(decode(&soft), Some(Decoded { payload, corrected: 0 }));
        // Every sixth bit is wrong, with less certainty than the others.
        for soft in soft.iter_mut().step_by(6).take(30) {
            *soft *= -0.5;
        }
        assert_eq!(decode(&soft), Some(Decoded { payload, corrected: 30 }));
    }

    #[test]
    fn values_without_a_payload_are_refused() {
        assert_eq!(decode(&[0.0; CODE_BITS]), None);
        assert_eq!(decode(&[1.0; CODE_BITS]), None);
        assert_eq!(decode(&[-1.0; CODE_BITS]), None);
        let mut state = 1_u32;
        for _ in 0..200 {
            let noise: Vec<f32> = (0..CODE_BITS)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 23) as f32 - 1.0
                })
                .collect();
            assert_eq!(decode(&noise), None);
        }
    }

    #[test]
    fn each_bit_of_the_payload_changes_the_check() {
        let payload = 0xfeed_face_cafe_beef_u64;
        for bit in 0..64 {
            assert_ne!(check(Payload(payload)), check(Payload(payload ^ 1 << bit)), "bit {bit}");
        }
    }
}
