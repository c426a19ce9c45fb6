//! A convolutional code of rate 1/2 with 4,096 states, and its decoder (Viterbi's algorithm with soft decisions). The
//! code is tail-biting: it starts in the state in which it ends, so no bits are spent on a known end.

use crate::simd::vectorized;

/// Bits of the state: the latest inputs, the newest in the highest place.
const MEMORY: u32 = 12;
const STATES: usize = 1 << MEMORY;
/// The two sums that the code sends for each input: the code of constraint length 13 with the largest free distance
/// (16; Larsen, "Short convolutional codes with maximal free distance", IEEE Transactions on Information Theory 19,
/// 1973). Both contain the newest and the oldest bit.
const SUMS: [u32; 2] = [0o10533, 0o17661];

/// Two code bits for each bit of the message, which has at least twelve bits.
pub(super) fn encode(message: &[bool]) -> Vec<bool> {
    let shifted = |state: u32, bit: bool| (u32::from(bit) << MEMORY | state) >> 1;
    let mut state = message[message.len() - MEMORY as usize..].iter().fold(0, |state, bit| shifted(state, *bit));
    let mut code = Vec::with_capacity(2 * message.len());
    for bit in message {
        let register = u32::from(*bit) << MEMORY | state;
        code.extend(SUMS.map(|sum| (register & sum).count_ones() % 2 == 1));
        state = register >> 1;
    }
    code
}

/// The message of the most probable code word. `soft` has two values for each bit of the message: a positive value
/// means 0, a negative value means 1. The decoder goes around the message twice and returns what it decided in the
/// middle, far from the unknown start and end.
pub(super) fn decode(soft: &[f32]) -> Vec<bool> {
    let bits = soft.len() / 2;
    let half = STATES / 2;
    let signs: Vec<[f32; 2]> = (0..half as u32).map(signs_after_zero).collect();
    let mut metrics = vec![0.0_f32; STATES];
    let mut next = vec![0.0_f32; STATES];
    // Whether the better predecessor of a state has a 1 as its oldest bit.
    let mut decisions = vec![false; 2 * bits * STATES];
    vectorized(
        #[inline(always)]
        || {
            for step in 0..2 * bits {
                let pair = [soft[2 * (step % bits)], soft[2 * (step % bits) + 1]];
                advance(&metrics, &mut next, pair, &signs, &mut decisions[step * STATES..][..STATES]);
                std::mem::swap(&mut metrics, &mut next);
            }
        },
    );

    let mut state = (0..STATES).fold(0, |best, state| if metrics[state] > metrics[best] { state } else { best });
    let mut message = vec![false; bits];
    for step in (0..2 * bits).rev() {
        if (bits / 2..bits / 2 + bits).contains(&step) {
            message[step % bits] = state >= half;
        }
        let oldest = usize::from(decisions[step * STATES + state]);
        state = (state << 1 & (STATES - 1)) | oldest;
    }
    message
}

/// Goes one input further: writes the larger metric of the two ways to each state, and which way has it.
#[inline(always)]
fn advance(metrics: &[f32], next: &mut [f32], [first, second]: [f32; 2], signs: &[[f32; 2]], decided: &mut [bool]) {
    let half = STATES / 2;
    let (next_zero, next_one) = next.split_at_mut(half);
    let (decided_zero, decided_one) = decided.split_at_mut(half);
    let states = metrics.as_chunks::<2>().0.iter().zip(signs);
    let next = next_zero.iter_mut().zip(next_one);
    let decided = decided_zero.iter_mut().zip(decided_one);
    for (((&[even, odd], signs), (zero, one)), (decided_zero, decided_one)) in states.zip(next).zip(decided) {
        // The inputs 0 and 1, and oldest bits 0 and 1, differ in the signs of both sums.
        let gain = signs[0] * first + signs[1] * second;
        let (zero_even, zero_odd) = (even + gain, odd - gain);
        let (one_even, one_odd) = (even - gain, odd + gain);
        *decided_zero = zero_odd > zero_even;
        *decided_one = one_odd > one_even;
        *zero = zero_even.max(zero_odd);
        *one = one_even.max(one_odd);
    }
}

/// The two sums for the input 0 in the state `2 · half_state`: 1 for the sum 0, and -1 for the sum 1.
fn signs_after_zero(half_state: u32) -> [f32; 2] {
    SUMS.map(|sum| if ((2 * half_state) & sum).count_ones() % 2 == 1 { -1.0 } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changing the sign of a value changes the bit, so the decoder is tested at the border of what the code corrects:
    /// its free distance is 16, so it corrects every error of at most 7 bits.
    #[test]
    fn any_seven_wrong_bits_are_corrected() {
        let message: Vec<bool> = (0..96_u32).map(|bit| bit * bit % 7 % 2 == 1).collect();
        let code = encode(&message);
        for first in (0..192).step_by(5) {
            for distance in [1, 2, 3, 11] {
                let mut soft: Vec<f32> = code.iter().map(|bit| if *bit { -1.0 } else { 1.0 }).collect();
                (0..7).for_each(|error| soft[(first + distance * error) % 192] *= -1.0);
                assert_eq!(decode(&soft), message, "errors from {first} at the distance {distance}");
            }
        }
    }
}
