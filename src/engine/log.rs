//! The log of a run: the outputs of its denoiser and classifier calls, from which the run can be resumed.

use sha2::{Digest, Sha256};

use crate::catalogue::Numerics;

/// Network outputs of consecutive logged calls of one run. If a recipe of the same generation gets them instead of
/// calling the networks, its sampler reaches the same state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// How many logged calls of the run come before the calls of this log.
    pub first: usize,
    /// For each call, the output of each row: (C, h, w) numbers.
    pub calls: Vec<Vec<Vec<f32>>>,
}

/// Why a file cannot be used as a portion of a run's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusablePortion {
    #[error("it is broken")]
    Broken,
    #[error("its numbers were computed by another build, on another device, or with other model files")]
    Foreign,
}

/// The first bytes of a portion's file. They include the version of the format.
const MAGIC: &[u8] = b"latentd log 1\n";
/// Bytes of the checksum at the end of a portion's file.
const CHECKSUM: usize = 32;

impl Log {
    /// Number of rows of all calls together.
    pub fn rows(&self) -> u64 {
        self.calls.iter().map(|rows| rows.len() as u64).sum()
    }

    /// Bytes of all outputs together.
    pub fn bytes(&self) -> usize {
        self.calls.iter().flatten().map(|row| 4 * row.len()).sum()
    }

    /// Appends `next` if it begins where this log ends. Returns whether it does; otherwise nothing changes.
    pub fn join(&mut self, next: Log) -> bool {
        let fits = next.first == self.first + self.calls.len();
        if fits {
            self.calls.extend(next.calls);
        }
        fits
    }

    /// Encodes the log as a file: `numerics`, the outputs, and a SHA-256 checksum of everything before it. Numbers are
    /// little-endian.
    pub fn encode(&self, numerics: &Numerics) -> Vec<u8> {
        let mut file = Vec::with_capacity(self.bytes() + 8 * self.calls.len() + 128);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(numerics.as_bytes());
        file.extend_from_slice(&(self.first as u64).to_le_bytes());
        for rows in &self.calls {
            file.extend_from_slice(&(rows.len() as u32).to_le_bytes());
            file.extend_from_slice(&(rows.first().map_or(0, Vec::len) as u32).to_le_bytes());
            rows.iter().flatten().for_each(|value| file.extend_from_slice(&value.to_le_bytes()));
        }
        let checksum = Sha256::digest(&file);
        file.extend_from_slice(&checksum);
        file
    }

    /// Decodes a file that [`Log::encode`] made.
    ///
    /// # Errors
    /// The file is damaged, or it has another format, or its numerics differ from `numerics`.
    pub fn decode(file: &[u8], numerics: &Numerics) -> Result<Log, UnusablePortion> {
        let (content, checksum) = file.split_last_chunk::<CHECKSUM>().ok_or(UnusablePortion::Broken)?;
        if Sha256::digest(content)[..] != checksum[..] {
            return Err(UnusablePortion::Broken);
        }
        let mut rest = content.strip_prefix(MAGIC).ok_or(UnusablePortion::Foreign)?;
        if rest.split_off(..numerics.as_bytes().len()) != Some(numerics.as_bytes()) {
            return Err(UnusablePortion::Foreign);
        }
        read(rest).ok_or(UnusablePortion::Broken)
    }
}

fn read(mut rest: &[u8]) -> Option<Log> {
    let first = u64::from_le_bytes(number(&mut rest)?);
    let mut log = Log { first: usize::try_from(first).ok()?, calls: Vec::new() };
    while !rest.is_empty() {
        let rows = u32::from_le_bytes(number(&mut rest)?);
        let values = u32::from_le_bytes(number(&mut rest)?) as usize;
        // Rows without values are refused: they take no bytes, so a small file could claim any number of such rows.
        let size = values.checked_mul(4).filter(|size| *size > 0)?;
        let row = |_| Some(floats(rest.split_off(..size)?));
        log.calls.push((0..rows).map(row).collect::<Option<_>>()?);
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
        let pending_call =
            |rows: usize, from: f32| (0..rows).map(|row| vec![from, row as f32, f32::MIN_POSITIVE]).collect();
        Log { first: 7, calls: vec![pending_call(2, 1.5), pending_call(1, -0.0), pending_call(4, 3e38)] }
    }

    #[test]
    fn a_decoded_portion_is_equal_and_a_portion_with_other_numerics_is_refused() {
        let (ours, theirs) = (Numerics::from_bytes([1; 32]), Numerics::from_bytes([2; 32]));
        let file = log().encode(&ours);
        assert_eq!(Log::decode(&file, &ours), Ok(log()));
        assert_eq!(Log::decode(&file, &theirs), Err(UnusablePortion::Foreign));
        assert_eq!((log().rows(), log().bytes()), (7, 7 * 12));
    }

    #[test]
    fn a_log_joins_only_the_portion_that_follows_it() {
        let mut whole = Log::default();
        assert!(!whole.join(log()), "seven calls are missing");
        assert!(whole.join(Log { first: 0, calls: vec![vec![vec![1.0]]; 7] }) && whole.join(log()));
        assert_eq!(whole.calls.len(), 10);
        assert!(!whole.join(log()), "it is there already");
    }

    proptest! {
        #[test]
        fn broken_portions_are_refused(at in 0usize..1000, bit in 0u8..8, keep in 0usize..1000) {
            let ours = Numerics::from_bytes([1; 32]);
            let whole = log().encode(&ours);
            let mut flipped = whole.clone();
            flipped[at % whole.len()] ^= 1 << bit;
            prop_assert_eq!(Log::decode(&flipped, &ours), Err(UnusablePortion::Broken));
            prop_assert_eq!(Log::decode(&whole[..keep % whole.len()], &ours), Err(UnusablePortion::Broken));
        }

        /// An attacker who can write files can also write a valid checksum.
        #[test]
        fn no_content_with_a_valid_checksum_causes_a_panic(content in prop::collection::vec(any::<u8>(), 0..64)) {
            let ours = Numerics::from_bytes([1; 32]);
            let mut file = [MAGIC, ours.as_bytes(), &content].concat();
            file.extend_from_slice(&Sha256::digest(&file));
            let _ = Log::decode(&file, &ours);
        }
    }
}
