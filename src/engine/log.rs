//! The denoiser's answers, the one thing that a run cannot make anew by itself.

use sha2::{Digest, Sha256};

use crate::catalogue::Numerics;

/// The answers to asks of one run for the denoiser that follow on each other. Given back to the same run, they bring it to
/// where it was, whatever its sampler, without one call of the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// How many asks of the run came before these.
    pub first: usize,
    /// The predictions for each ask, (C, h, w) for each of its rows.
    pub asks: Vec<Vec<Vec<f32>>>,
}

/// A file is no part of a run's log that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusablePart {
    #[error("it is broken")]
    Broken,
    #[error("its numbers were computed by another build, machine or model")]
    Foreign,
}

/// What a part begins with, the version of its form among it.
const MAGIC: &[u8] = b"latentd log 1\n";
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 32;

impl Log {
    /// Rows of all asks together.
    pub fn rows(&self) -> u64 {
        self.asks.iter().map(|rows| rows.len() as u64).sum()
    }

    /// Bytes of the predictions.
    pub fn bytes(&self) -> usize {
        self.asks.iter().flatten().map(|row| 4 * row.len()).sum()
    }

    /// Takes up what goes on where this ends; anything else is left out, and the answer is false.
    pub fn join(&mut self, next: Log) -> bool {
        let fits = next.first == self.first + self.asks.len();
        if fits {
            self.asks.extend(next.asks);
        }
        fits
    }

    /// As a file: what computed it, the asks, and a SHA-256 of all that. Numbers are little-endian.
    pub fn encode(&self, numerics: &Numerics) -> Vec<u8> {
        let mut file = Vec::with_capacity(self.bytes() + 8 * self.asks.len() + 128);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(numerics.as_bytes());
        file.extend_from_slice(&(self.first as u64).to_le_bytes());
        for rows in &self.asks {
            file.extend_from_slice(&(rows.len() as u32).to_le_bytes());
            file.extend_from_slice(&(rows.first().map_or(0, Vec::len) as u32).to_le_bytes());
            rows.iter().flatten().for_each(|value| file.extend_from_slice(&value.to_le_bytes()));
        }
        let checksum = Sha256::digest(&file);
        file.extend_from_slice(&checksum);
        file
    }

    /// What [`Log::encode`] made a file of.
    ///
    /// # Errors
    /// The file is not whole, or other numerics than these made it.
    pub fn decode(file: &[u8], numerics: &Numerics) -> Result<Log, UnusablePart> {
        let (content, checksum) = file.split_last_chunk::<CHECKSUM>().ok_or(UnusablePart::Broken)?;
        if Sha256::digest(content)[..] != checksum[..] {
            return Err(UnusablePart::Broken);
        }
        let mut rest = content.strip_prefix(MAGIC).ok_or(UnusablePart::Foreign)?;
        if rest.split_off(..numerics.as_bytes().len()) != Some(numerics.as_bytes()) {
            return Err(UnusablePart::Foreign);
        }
        read(rest).ok_or(UnusablePart::Broken)
    }
}

fn read(mut rest: &[u8]) -> Option<Log> {
    let first = u64::from_le_bytes(number(&mut rest)?);
    let mut log = Log { first: usize::try_from(first).ok()?, asks: Vec::new() };
    while !rest.is_empty() {
        let rows = u32::from_le_bytes(number(&mut rest)?);
        let values = u32::from_le_bytes(number(&mut rest)?) as usize;
        // Rows without values would be as many as one likes in a file of any size.
        let size = values.checked_mul(4).filter(|size| *size > 0)?;
        let row = |_| Some(floats(rest.split_off(..size)?));
        log.asks.push((0..rows).map(row).collect::<Option<_>>()?);
    }
    Some(log)
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log() -> Log {
        let ask = |rows: usize, from: f32| (0..rows).map(|row| vec![from, row as f32, f32::MIN_POSITIVE]).collect();
        Log { first: 7, asks: vec![ask(2, 1.5), ask(1, -0.0), ask(4, 3e38)] }
    }

    #[test]
    fn a_part_comes_back_and_one_of_other_numerics_does_not() {
        let (ours, theirs) = (Numerics::from_bytes([1; 32]), Numerics::from_bytes([2; 32]));
        let file = log().encode(&ours);
        assert_eq!(Log::decode(&file, &ours), Ok(log()));
        assert_eq!(Log::decode(&file, &theirs), Err(UnusablePart::Foreign));
        assert_eq!((log().rows(), log().bytes()), (7, 7 * 12));
    }

    #[test]
    fn only_what_follows_is_joined() {
        let mut whole = Log::default();
        assert!(!whole.join(log()), "seven asks are missing");
        assert!(whole.join(Log { first: 0, asks: vec![vec![vec![1.0]]; 7] }) && whole.join(log()));
        assert_eq!(whole.asks.len(), 10);
        assert!(!whole.join(log()), "it is there already");
    }

    proptest! {
        #[test]
        fn broken_parts_are_refused(at in 0usize..1000, bit in 0u8..8, keep in 0usize..1000) {
            let ours = Numerics::from_bytes([1; 32]);
            let whole = log().encode(&ours);
            let mut flipped = whole.clone();
            flipped[at % whole.len()] ^= 1 << bit;
            prop_assert_eq!(Log::decode(&flipped, &ours), Err(UnusablePart::Broken));
            prop_assert_eq!(Log::decode(&whole[..keep % whole.len()], &ours), Err(UnusablePart::Broken));
        }

        /// Somebody who can write files can write a checksum too.
        #[test]
        fn no_content_under_a_right_checksum_is_more_than_unusable(content in prop::collection::vec(any::<u8>(), 0..64)) {
            let ours = Numerics::from_bytes([1; 32]);
            let mut file = [MAGIC, ours.as_bytes(), &content].concat();
            file.extend_from_slice(&Sha256::digest(&file));
            let _ = Log::decode(&file, &ours);
        }
    }
}
