//! The text form of ids in the API: a prefix and the 128 bits of a UUID in 26 characters of Crockford's base 32.

use std::fmt;

use uuid::Uuid;

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

pub(super) fn write(f: &mut fmt::Formatter<'_>, prefix: &str, uuid: Uuid) -> fmt::Result {
    let n = uuid.as_u128();
    f.write_str(prefix)?;
    // 26 digits of 5 bits are 130 bits, so the first digit holds only the top 3 bits of the UUID.
    for digit in (0..26).rev() {
        let value = (n >> (digit * 5)) as usize & 31;
        write!(f, "{}", DIGITS[value] as char)?;
    }
    Ok(())
}

/// Parses the text that [`write`] writes.
pub(super) fn parse(text: &str, prefix: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?.as_bytes();
    if digits.len() != 26 || digits[0] > b'7' {
        return None;
    }
    let mut n = 0u128;
    for digit in digits {
        let value = DIGITS.iter().position(|d| d == digit)?;
        n = n << 5 | value as u128;
    }
    Some(Uuid::from_u128(n))
}

/// Defines an id type with the text form of this module.
macro_rules! named_id {
    ($(#[$about:meta])* $name:ident, $prefix:literal) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// A new id, greater than every id that this process made before.
            pub fn new() -> $name {
                $name(uuid::Uuid::now_v7())
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(uuid::Uuid::from_bytes(bytes))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name::new()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::generation::named_id::write(f, $prefix, self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::generation::InvalidId;

            fn from_str(text: &str) -> Result<Self, $crate::generation::InvalidId> {
                let invalid = $crate::generation::InvalidId { prefix: $prefix };
                $crate::generation::named_id::parse(text, $prefix).map($name).ok_or(invalid)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(super) use named_id;
