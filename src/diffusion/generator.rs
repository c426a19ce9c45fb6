//! torch's random number generator for the CPU.

use std::f32::consts::TAU;

use super::mt19937::Mt19937;

/// `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct Generator {
    /// The seed as given, with all 64 bits.
    pub(super) seed: u64,
    words: Mt19937,
    /// The second value of the last Box-Muller pair; the next draw of fewer than 16 values uses it first.
    spare: Option<f64>,
}

impl Generator {
    /// Only the low 32 bits of the seed have an effect on the numbers, as in torch.
    pub fn new(seed: u64) -> Generator {
        Generator { seed, words: Mt19937::new(seed as u32), spare: None }
    }

    /// `torch.randn(out.len())` in float32. torch uses one algorithm for 16 values or more and another for fewer.
    pub fn fill_randn(&mut self, out: &mut [f32]) {
        if out.len() >= 16 {
            self.fill_blocks(out);
        } else {
            out.iter_mut().for_each(|x| *x = self.normal() as f32);
        }
    }

    fn fill_blocks(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|u| *u = self.uniform24());
        out.chunks_exact_mut(16).for_each(box_muller);
        if !out.len().is_multiple_of(16) {
            // The last 16 values are drawn again; they overlap a block that is already finished.
            let last = out.len() - 16;
            out[last..].iter_mut().for_each(|u| *u = self.uniform24());
            box_muller(&mut out[last..]);
        }
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform53(), self.uniform53());
        let r = libm::sqrt(-2.0 * libm::log1p(-u2));
        let theta = std::f64::consts::TAU * u1;
        self.spare = Some(r * libm::sin(theta));
        r * libm::cos(theta)
    }

    /// Uniform in `[0, 1)` with 24 bits, from one word.
    fn uniform24(&mut self) -> f32 {
        (self.words.word() & 0x00ff_ffff) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `[0, 1)` with 53 bits, from two words, the high word first.
    fn uniform53(&mut self) -> f64 {
        let (high, low) = (u64::from(self.words.word()), u64::from(self.words.word()));
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }
}

/// Turns 16 uniform values into 16 normal values in place. The values of a pair are 8 apart, as in torch's vector code.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        let r = libm::sqrtf(-2.0 * libm::logf(1.0 - *a));
        let theta = TAU * *b;
        (*a, *b) = (r * libm::cosf(theta), r * libm::sinf(theta));
    }
}
