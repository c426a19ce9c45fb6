//! API keys and their text form.

use sha2::{Digest, Sha256};

use crate::config::Secret;

/// An API key `ltd_<id>_<secret>_<check>`: a prefix that makes leaked keys easy to find, the id under which the store
/// keeps the record of the key, 256 random bits, and a checksum that reveals a mistyped key without access to the
/// store.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: String,
    text: Secret,
}

const PREFIX: &str = "ltd";
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_DIGITS: usize = 8;
/// Enough base-62 digits for 256 bits: 62^43 > 2^256.
const SECRET_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;

impl ApiKey {
    /// Makes a random key.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new() -> Result<ApiKey, getrandom::Error> {
        let mut id = [0; 8];
        getrandom::fill(&mut id)?;
        ApiKey::with_id(&base62(&id, ID_DIGITS))
    }

    /// Makes a key with this id and a new random secret.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn with_id(id: &str) -> Result<ApiKey, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let text = format!("{PREFIX}_{id}_{}", base62(&secret, SECRET_DIGITS));
        Ok(ApiKey { id: id.to_owned(), text: Secret::new(format!("{text}_{}", check(&text))) })
    }

    /// Whether the text is, or was meant to be, a key of this server.
    pub fn is_like(text: &str) -> bool {
        text.trim_start().to_ascii_lowercase().starts_with(&format!("{PREFIX}_"))
    }

    /// Parses a key; `None` if the form or the checksum is wrong.
    pub fn parse(text: &str) -> Option<ApiKey> {
        let (checked, sum) = text.rsplit_once('_')?;
        let mut parts = checked.split('_');
        let (PREFIX, id, secret, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let is_whole = id.len() == ID_DIGITS
            && secret.len() == SECRET_DIGITS
            && [id, secret].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            && sum == check(checked);
        is_whole.then(|| ApiKey { id: id.to_owned(), text: Secret::new(text) })
    }

    /// The text of the key, which is shown once.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The digest that the store keeps. The key has enough random bits that no slow hash is needed.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.text.expose()).into()
    }
}

/// The lowest `digits` base-62 digits of a big-endian number.
fn base62(number: &[u8], digits: usize) -> String {
    let mut number = number.to_vec();
    let mut text = vec!['0'; digits];
    for place in text.iter_mut().rev() {
        let mut rest = 0;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *place = char::from(DIGITS[rest as usize]);
    }
    text.into_iter().collect()
}

/// The checksum of a key: CRC-32 as in PNG and gzip.
fn check(text: &str) -> String {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let crc = !text.bytes().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), bit));
    base62(&crc.to_be_bytes(), CHECK_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_key_is_read_unchanged() {
        let key = ApiKey::new().unwrap();
        assert_eq!(key.expose().len(), "ltd_".len() + 8 + 1 + 43 + 1 + 6);
        let read = ApiKey::parse(key.expose()).unwrap();
        assert_eq!((&read.id, read.sha256()), (&key.id, key.sha256()));
        assert_ne!(ApiKey::new().unwrap().sha256(), key.sha256());
        assert!(!format!("{key:?}").contains(key.expose()), "a key is not for the log");
    }

    #[test]
    fn no_key_with_one_wrong_character_is_read() {
        let key = ApiKey::new().unwrap();
        for at in 0..key.expose().len() {
            let mut wrong = key.expose().to_owned();
            let other = if wrong.as_bytes()[at] == b'x' { "y" } else { "x" };
            wrong.replace_range(at..=at, other);
            assert!(ApiKey::parse(&wrong).is_none(), "{at}");
        }
        for text in ["", "ltd", "ltd___", "ltd_a_b_c", "sk-abc", &format!("{}_x", key.expose()), &key.expose()[1..]] {
            assert!(ApiKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_png() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(check("123456789"), base62(&0xcbf4_3926_u32.to_be_bytes(), CHECK_DIGITS));
        assert_eq!(base62(&[1, 0], 3), "048");
    }
}
