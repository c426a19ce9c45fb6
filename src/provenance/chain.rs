//! Makes the certificate of a server whose operator has none: a root, and a signer's certificate that the root issued.
//!
//! C2PA refuses certificates that issue themselves. The private key of the root is dropped at once, so that nobody can
//! issue another certificate in its name.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::KeyError;
use crate::config::Secret;

/// How long the certificates are valid. Readers check a signature without a time stamp against today's date, so a short
/// time would make old pictures invalid.
const YEARS: i64 = 30;

/// Makes a private key, the signer's certificate and the root's certificate, in one PEM text in this order. The
/// certificates are valid from a day before `now`.
///
/// # Errors
/// The system has no random numbers.
pub fn make(now: OffsetDateTime) -> Result<Secret, KeyError> {
    let failed = |error: rcgen::Error| KeyError::NotMade(error.to_string());
    let (root_key, key) = (KeyPair::generate().map_err(failed)?, KeyPair::generate().map_err(failed)?);
    let mut root = of_name("latentd self-made root", now);
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(root, root_key).map_err(failed)?;
    let mut signer = of_name("latentd self-made signer", now);
    signer.is_ca = IsCa::ExplicitNoCa;
    signer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // The purpose "C2PA claim signing", and one that older readers know.
    let claim_signing = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, 62558, 2, 1]);
    signer.extended_key_usages = vec![claim_signing, ExtendedKeyUsagePurpose::EmailProtection];
    signer.use_authority_key_identifier_extension = true;
    let signer = signer.signed_by(&key, &root).map_err(failed)?;
    Ok(Secret::new(format!("{}{}{}", key.serialize_pem(), signer.pem(), root.pem())))
}

/// Parameters of a certificate with this name.
fn of_name(name: &str, now: OffsetDateTime) -> CertificateParams {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, "latentd (self-made, unknown to trust lists)");
    distinguished.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished;
    // The validity begins a day earlier, so that a reader whose clock is a little behind accepts the certificate.
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(365 * YEARS);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::Keys;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-30 0:00 UTC);

    #[test]
    fn two_servers_have_different_keys() {
        let [one, other] = [make(NOW).unwrap(), make(NOW).unwrap()].map(|text| Keys::self_made(&text));
        assert_ne!(one.private_key, other.private_key);
        assert_ne!(one.certificates, other.certificates);
    }
}
