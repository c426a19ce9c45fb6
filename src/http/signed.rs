//! Signed URLs: until it expires, each allows access to one file, or to the preview or the events of one generation. A
//! signed URL ends with `?exp=SECONDS&sig=…`, where `sig` is an HMAC-SHA256 of path and expiry. The module `tenant`
//! makes URLs for all generations of a tenant.

mod tenant;

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;

use super::{caller::Caller, error::ApiError, urlencoded};
use crate::{
    config::Http,
    service::{Access, Service, ServiceError},
};

/// The current time in seconds since 1970.
pub fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Makes and checks signatures. Without a secret it makes none.
#[derive(Clone)]
pub struct Signer {
    key: Option<Hmac<Sha256>>,
    lifetime_s: i64,
    /// The latest expiry that [`Signer::expiry`] returns, in seconds since 1970.
    latest: i64,
}

/// Who reads: a caller, or the holder of a signed URL.
#[derive(Clone, Debug)]
pub enum Reader {
    Caller(Caller),
    /// The URL expires at this time, in seconds since 1970.
    Signed(i64),
    /// The holder of a URL that is signed for the key of this caller and valid until this time, in seconds since 1970.
    Holder(Caller, i64),
}

impl Reader {
    /// A signed URL grants access by itself.
    pub fn access(&self) -> Access<'_> {
        match self {
            Reader::Caller(caller) | Reader::Holder(caller, _) => caller.access(),
            Reader::Signed(_) => Access::Full,
        }
    }

    /// Whether the reader of an open stream may still read.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn may_go_on(&self, service: &Service) -> Result<bool, ServiceError> {
        match self {
            Reader::Caller(caller) => service.may_still_read(caller).await,
            Reader::Signed(expiry) => Ok(now() < *expiry),
            Reader::Holder(caller, expiry) => Ok(now() < *expiry && service.may_still_read(caller).await?),
        }
    }
}

impl Signer {
    /// Uses `http.url_secret` and `http.url_expiry_s`.
    pub fn new(settings: &Http) -> Signer {
        let secret = settings.url_secret.expose().as_bytes();
        // HMAC accepts keys of any length.
        let key = (!secret.is_empty()).then(|| Hmac::new_from_slice(secret).ok()).flatten();
        let lifetime = Duration::from(settings.url_expiry_s).as_secs_f64().ceil();
        Signer { key, lifetime_s: lifetime as i64, latest: i64::MAX }
    }

    /// When a URL that is signed at `now` expires, in seconds since 1970; `None` without a secret. The URL is valid for
    /// the lifetime and up to a quarter longer. Requests that are repeated within a short time therefore usually get
    /// the same URL, and caches can reuse the picture.
    pub fn expiry(&self, now: i64) -> Option<i64> {
        self.key.as_ref()?;
        let quarter = (self.lifetime_s / 4).max(1);
        let least = now + self.lifetime_s;
        Some((least + (-least).rem_euclid(quarter)).min(self.latest))
    }

    /// A signer for answers to this reader. The holder of a signed URL gets only URLs that expire no later than that
    /// URL.
    pub fn for_reader(self, reader: &Reader) -> Signer {
        match reader {
            Reader::Caller(_) => self,
            Reader::Signed(expiry) | Reader::Holder(_, expiry) => Signer { latest: *expiry, ..self },
        }
    }

    /// Whether this signer is for answers to the holder of a signed URL.
    pub fn is_of_holder(&self) -> bool {
        self.latest != i64::MAX
    }

    /// The path with its signature; without a secret the path alone.
    pub fn sign(&self, path: &str, expiry: i64) -> String {
        match self.mac(path, &expiry.to_string()) {
            Some(mac) => format!("{path}?exp={expiry}&sig={}", encoded(mac)),
            None => path.to_owned(),
        }
    }

    /// Checks that the signature in the query allows access to `path`, and returns when the signature expires; `None`
    /// if the query has no signature.
    ///
    /// # Errors
    /// The signature is not valid for this path, or it has expired.
    pub fn verify(&self, path: &str, query: &str, now: i64) -> Result<Option<i64>, ApiError> {
        let claim = Claim::read(query)?;
        if claim.expiry.is_none() && claim.signature.is_none() {
            return Ok(None);
        }
        match self.expiry_of(path, &claim) {
            None => Err(ApiError::SignatureInvalid),
            Some(expiry) if expiry <= now => Err(ApiError::ImageExpired),
            Some(expiry) => Ok(Some(expiry)),
        }
    }

    /// The reader of `path`: the holder of a signed URL, who needs no key, otherwise the caller.
    ///
    /// # Errors
    /// Those of [`Signer::verify`]; without a signature, the error in `caller`.
    pub fn reader(
        &self,
        path: &str,
        query: Option<&str>,
        caller: Result<Caller, ApiError>,
    ) -> Result<Reader, ApiError> {
        match self.verify(path, query.unwrap_or_default(), now())? {
            Some(expiry) => Ok(Reader::Signed(expiry)),
            None => caller.map(Reader::Caller),
        }
    }

    /// When the claim expires; `None` if its signature is not valid for `subject`.
    fn expiry_of(&self, subject: &str, claim: &Claim) -> Option<i64> {
        let (expiry, signature) = (claim.expiry.as_deref()?, claim.signature.as_deref()?);
        let mac = self.mac(subject, expiry)?;
        mac.verify_slice(&BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        expiry.parse().ok()
    }

    fn mac(&self, path: &str, expiry: &str) -> Option<Hmac<Sha256>> {
        let mut mac = self.key.clone()?;
        // No path contains a line break, so no other pair of path and expiry gives the same bytes.
        mac.update(format!("{path}\n{expiry}").as_bytes());
        Some(mac)
    }
}

/// What a query says about its signature.
#[derive(Debug, Default, PartialEq)]
struct Claim {
    expiry: Option<String>,
    signature: Option<String>,
    /// The id of the key for which the URL is signed.
    key: Option<String>,
}

impl Claim {
    /// Reads the parameters of a signature; other parameters are skipped.
    ///
    /// # Errors
    /// The query is malformed, or has a parameter of a signature twice.
    fn read(query: &str) -> Result<Claim, ApiError> {
        let mut claim = Claim::default();
        for (name, value) in urlencoded::pairs(query.as_bytes())? {
            let place = match &*name {
                "exp" => &mut claim.expiry,
                "sig" => &mut claim.signature,
                "key" => &mut claim.key,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(ApiError::SignatureInvalid);
            }
        }
        Ok(claim)
    }
}

/// The text of a signature.
fn encoded(mac: Hmac<Sha256>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("lifetime_s", &self.lifetime_s).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Sources};

    const NOW: i64 = 1_800_000_123;
    const PATH: &str = "/v1/images/img_01k39v5q8me7x9t4n2hz0w6r1s/content/0";

    fn signer(secret: &str, expiry_s: &str) -> Signer {
        let flags = [("http.url_secret", secret), ("http.url_expiry_s", expiry_s)];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Signer::new(&Config::load(&Sources { flags, ..Sources::default() }).unwrap().http)
    }

    fn ours() -> Signer {
        signer("correct horse battery staple", "3600")
    }

    fn signed(signer: &Signer) -> (String, i64) {
        let expiry = signer.expiry(NOW).unwrap();
        let url = signer.sign(PATH, expiry);
        (url.strip_prefix(&format!("{PATH}?")).unwrap().to_owned(), expiry)
    }

    #[test]
    fn a_signature_holds_for_its_path_until_it_expires() {
        let (query, expiry) = signed(&ours());
        assert!((3600..=4500).contains(&(expiry - NOW)), "{}", expiry - NOW);
        assert_eq!(ours().verify(PATH, &query, NOW).unwrap(), Some(expiry));
        assert!(ours().verify(PATH, &format!("download=1&{query}"), expiry - 1).unwrap().is_some());
        assert!(matches!(ours().verify(PATH, &query, expiry), Err(ApiError::ImageExpired)));
        for path in [PATH.replace("/0", "/1"), PATH.replace("r1s", "r1t"), format!("{PATH}0")] {
            assert!(matches!(ours().verify(&path, &query, NOW), Err(ApiError::SignatureInvalid)), "{path}");
        }
        let other = signer("another secret of ours", "3600");
        assert!(matches!(other.verify(PATH, &query, NOW), Err(ApiError::SignatureInvalid)));
    }

    #[test]
    fn incomplete_repeated_and_altered_signatures_are_refused() {
        let (query, expiry) = signed(&ours());
        let signature = query.split_once("sig=").unwrap().1;
        for bad in [
            format!("exp={expiry}"),
            format!("sig={signature}"),
            format!("{query}&exp={expiry}"),
            format!("exp={}&sig={signature}", expiry + 1),
            format!("exp=+{expiry}&sig={signature}"),
            format!("exp={expiry}&sig={signature}A"),
            format!("exp={expiry}&sig={}", &signature[1..]),
            format!("exp={expiry}&sig="),
        ] {
            assert!(matches!(ours().verify(PATH, &bad, NOW), Err(ApiError::SignatureInvalid)), "{bad}");
        }
        assert!(ours().verify(PATH, "after=1", NOW).unwrap().is_none());
    }

    #[test]
    fn without_a_secret_nothing_is_signed_and_no_signature_holds() {
        let silent = signer("", "3600");
        assert_eq!((silent.expiry(NOW), &*silent.sign(PATH, NOW)), (None, PATH));
        assert!(silent.verify(PATH, "", NOW).unwrap().is_none());
        let (query, _) = signed(&ours());
        assert!(matches!(silent.verify(PATH, &query, NOW), Err(ApiError::SignatureInvalid)));
    }

    #[test]
    fn short_lives_are_whole_seconds() {
        let brief = signer("correct horse battery staple", "0.5");
        assert_eq!(brief.expiry(NOW), Some(NOW + 1));
    }

    proptest! {
        #[test]
        fn no_changed_query_passes(at in 0usize..70, to in "[0-9A-Za-z_-]") {
            let (query, _) = signed(&ours());
            let at = at % query.len();
            let mut changed = query.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != query);
            // A changed parameter name can remove the signature altogether.
            prop_assert!(ours().verify(PATH, &changed, NOW).unwrap_or(None).is_none(), "{}", changed);
        }

        #[test]
        fn who_asks_again_soon_is_given_the_same_url(now in 0i64..4_000_000_000, lifetime in 1i64..1_000_000) {
            let signer = signer("correct horse battery staple", &lifetime.to_string());
            let expiry = signer.expiry(now).unwrap();
            let quarter = (lifetime / 4).max(1);
            prop_assert!(expiry - now >= lifetime && expiry - now < lifetime + quarter);
            prop_assert_eq!(expiry % quarter, 0);
        }
    }
}
