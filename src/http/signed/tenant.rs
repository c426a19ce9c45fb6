//! URLs that are signed for an API key: `?key=ID&exp=SECONDS&sig=…`. The signature covers the digest of the key, so
//! such a URL is valid only as long as the key is: it ends when the key is revoked, rotated or expires.

use super::{Claim, Reader, Signer, encoded, now};
use crate::{
    hex::hex,
    http::{caller::Caller, error::ApiError, url},
    service::Service,
};

impl Signer {
    /// The path, signed for the caller's key, and when the signature expires. If there is no secret, or if the caller
    /// has no key and therefore needs no signature, the result is the path alone and `None`.
    pub fn sign_for(&self, path: &str, caller: &Caller) -> (String, Option<i64>) {
        let signed = || {
            let (key, digest, expiry) = (caller.key.as_ref()?, caller.digest.as_ref()?, self.expiry(now())?);
            let mac = self.mac(&subject(path, &key.id, digest), &expiry.to_string())?;
            let key = url::encode(&key.id);
            Some((format!("{path}?key={key}&exp={expiry}&sig={}", encoded(mac)), Some(expiry)))
        };
        signed().unwrap_or_else(|| (path.to_owned(), None))
    }

    /// The reader of what belongs to the tenant at `path`: the holder of a URL of [`Signer::sign_for`], who needs no
    /// key, or the caller if the URL has no signature.
    ///
    /// # Errors
    /// The query has a signature that is not valid for this path, or that has expired, or whose key has expired; or the
    /// store does not answer. If the query has no signature, the error is the error in `caller`.
    pub async fn tenant_reader(
        &self,
        service: &Service,
        path: &str,
        query: Option<&str>,
        caller: Result<Caller, ApiError>,
    ) -> Result<Reader, ApiError> {
        let claim = Claim::read(query.unwrap_or_default())?;
        if claim == Claim::default() {
            return caller.map(Reader::Caller);
        }
        let key = claim.key.as_deref().unwrap_or_default();
        let expiry = |digest: &[u8; 32]| self.expiry_of(&subject(path, key, digest), &claim);
        let (holder, expiry) = service.holder(key, expiry).await?.ok_or(ApiError::SignatureInvalid)?;
        if expiry <= now() {
            return Err(ApiError::UrlExpired);
        }
        Ok(Reader::Holder(holder, expiry))
    }
}

/// What is signed instead of the path. It differs from every path, because no path contains a question mark.
fn subject(path: &str, key: &str, digest: &[u8; 32]) -> String {
    format!("{path}?key={key}&digest={}", hex(digest))
}
