//! The certificates and the private key of a signer, as PEM text.

use base64::{Engine, prelude::BASE64_STANDARD};
use c2pa::SigningAlg;

use super::KeyError;
use crate::config::Secret;

/// The certificates and the private key of a signer.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The signer's certificate, then the certificates that issued it.
    pub certificates: String,
    /// The PKCS#8 key of the first certificate.
    pub private_key: Secret,
}

impl Keys {
    /// Reads the text of [`make`](super::make): the private key, the signer's certificate, and the root's certificate.
    /// Signatures contain the signer's certificate only, because a reader that trusts the root has its certificate.
    pub fn self_made(text: &Secret) -> Keys {
        let blocks = blocks(text.expose());
        let first = |is_certificate: bool| {
            let found = blocks.iter().find(|(label, _)| (*label == CERTIFICATE) == is_certificate);
            found.map(|(_, block)| format!("{block}\n")).unwrap_or_default()
        };
        Keys { certificates: first(true), private_key: Secret::new(first(false)) }
    }

    /// The DER of the certificates.
    ///
    /// # Errors
    /// There is no certificate, or one that is not base64.
    pub(super) fn certificates_der(&self) -> Result<Vec<Vec<u8>>, KeyError> {
        let ders = certificates_of(&self.certificates).ok_or(KeyError::Certificate)?;
        if ders.is_empty() { Err(KeyError::Certificate) } else { Ok(ders) }
    }

    /// The signature algorithm that the private key is for.
    ///
    /// # Errors
    /// The key is not an unencrypted PKCS#8 key of a supported kind.
    pub(super) fn algorithm(&self) -> Result<SigningAlg, KeyError> {
        let (label, block) = blocks(self.private_key.expose()).into_iter().next().ok_or(KeyError::NoKey)?;
        if label != "PRIVATE KEY" {
            return Err(KeyError::Encoding(label.to_owned()));
        }
        let der = decoded(block).ok_or(KeyError::NoKey)?;
        // The object identifiers of the key's kind, as DER. They stand near the beginning, before the key itself.
        let head = &der[..der.len().min(48)];
        let has = |oid: &[u8]| memchr::memmem::find(head, oid).is_some();
        match () {
            () if has(&[0x06, 0x03, 0x2b, 0x65, 0x70]) => Ok(SigningAlg::Ed25519),
            () if has(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]) => Ok(SigningAlg::Es256),
            () if has(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]) => Ok(SigningAlg::Es384),
            () if has(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23]) => Ok(SigningAlg::Es512),
            () => Err(KeyError::Kind),
        }
    }
}

const CERTIFICATE: &str = "CERTIFICATE";

/// The DER of all certificates in a PEM text; `None` if one of them is not base64.
pub(super) fn certificates_of(text: &str) -> Option<Vec<Vec<u8>>> {
    let certificates = blocks(text).into_iter().filter(|(label, _)| *label == CERTIFICATE);
    certificates.map(|(_, block)| decoded(block)).collect()
}

/// The blocks of a PEM text (RFC 7468): the label and the whole block.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let block = &rest[begin..];
        let Some((label, _)) = block["-----BEGIN ".len()..].split_once("-----") else { break };
        let end = format!("-----END {label}-----");
        let Some(at) = block.find(&end) else { break };
        found.push((label, &block[..at + end.len()]));
        rest = &block[at + end.len()..];
    }
    found
}

/// The bytes of a block.
fn decoded(block: &str) -> Option<Vec<u8>> {
    let lines = block.lines().filter(|line| !line.starts_with("-----"));
    BASE64_STANDARD.decode(lines.flat_map(|line| line.trim().chars()).collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::provenance::make;

    #[test]
    fn the_algorithm_is_that_of_the_key() {
        for (kind, expected) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, SigningAlg::Es256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, SigningAlg::Es384),
            (&rcgen::PKCS_ED25519, SigningAlg::Ed25519),
        ] {
            let key = rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem();
            let keys = Keys { certificates: String::new(), private_key: Secret::new(key) };
            assert_eq!(keys.algorithm().unwrap(), expected);
        }
    }

    #[test]
    fn other_keys_are_refused_with_their_reason() {
        let refusal = |key: &str| {
            let keys = Keys { certificates: String::new(), private_key: Secret::new(key) };
            keys.algorithm().unwrap_err().to_string()
        };
        assert!(refusal("").contains("no private key"), "{}", refusal(""));
        let old = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----";
        assert!(refusal(old).contains("EC PRIVATE KEY") && refusal(old).contains("PKCS#8"));
        let rsa = "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----";
        assert!(refusal(rsa).contains("ES256"), "{}", refusal(rsa));
    }

    #[test]
    fn one_text_holds_the_key_and_the_certificates() {
        let keys = Keys::self_made(&make(OffsetDateTime::UNIX_EPOCH).unwrap());
        assert_eq!(keys.certificates_der().unwrap().len(), 1);
        assert_eq!(keys.algorithm().unwrap(), SigningAlg::Es256);
        assert!(!format!("{keys:?}").contains("PRIVATE"), "a key is never printed");
    }
}
