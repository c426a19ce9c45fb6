//! The name of a generation.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `img_` and a version 7 UUID in 26 characters of Crockford's base 32: unguessable enough to share, sortable by age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(Uuid);

/// The text is not a generation id.
#[derive(Debug, thiserror::Error)]
#[error("not a generation id: expected img_ and 26 characters of Crockford's base 32")]
pub struct InvalidId;

const PREFIX: &str = "img_";
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl GenerationId {
    /// A new id, greater than every id that this process made before.
    pub fn new() -> GenerationId {
        GenerationId(Uuid::now_v7())
    }

    /// When it was made; a time long past for one that this program did not make.
    pub fn made_at(&self) -> SystemTime {
        let unix = self.0.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        UNIX_EPOCH + Duration::new(unix.0, unix.1)
    }

    /// Whether it could have been made by [`GenerationId::new`], here or at a client's.
    pub fn is_version_7(&self) -> bool {
        self.0.get_version_num() == 7 && self.0.get_variant() == uuid::Variant::RFC4122
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> GenerationId {
        GenerationId(Uuid::from_bytes(bytes))
    }
}

impl Default for GenerationId {
    fn default() -> Self {
        GenerationId::new()
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.as_u128();
        f.write_str(PREFIX)?;
        // 26 digits of 5 bits are 130 bits; the first digit holds the top 3.
        for digit in (0..26).rev() {
            let value = (n >> (digit * 5)) as usize & 31;
            write!(f, "{}", DIGITS[value] as char)?;
        }
        Ok(())
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for GenerationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix(PREFIX).ok_or(InvalidId)?.as_bytes();
        if digits.len() != 26 || digits[0] > b'7' {
            return Err(InvalidId);
        }
        let mut n = 0u128;
        for digit in digits {
            let value = DIGITS.iter().position(|d| d == digit).ok_or(InvalidId)?;
            n = n << 5 | value as u128;
        }
        Ok(GenerationId(Uuid::from_u128(n)))
    }
}

impl Serialize for GenerationId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GenerationId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_and_survive_their_text() {
        let ids: Vec<_> = (0..100).map(|_| GenerationId::new()).collect();
        for pair in ids.windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for id in ids {
            assert_eq!(id.to_string().parse::<GenerationId>().unwrap(), id);
            assert_eq!(id.to_string().len(), 30);
            assert!(id.is_version_7());
        }
    }

    #[test]
    fn other_uuids_are_of_no_age() {
        for id in [GenerationId::from_bytes([0; 16]), GenerationId::from_bytes(*Uuid::new_v4().as_bytes())] {
            assert!(!id.is_version_7(), "{id}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "img_", "img_8zzzzzzzzzzzzzzzzzzzzzzzzz", "img_0000000000000000000000000u", "x"] {
            assert!(text.parse::<GenerationId>().is_err(), "{text}");
        }
    }
}
