//! Finds the sender of a request by its API key.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::{Allowances, Caller, CallerKey, KeyRing, Service, ServiceError, api_key::ApiKey};
use crate::{
    generation::{Fields, Scope},
    ledger::{KeyQuery, Page, StoredKey, UsageOfDay},
};

/// A cache of keys that were found in the store. Clones share the contents.
#[derive(Clone, Debug)]
pub struct KeyCache {
    kept: Arc<Mutex<Kept>>,
    /// Maximum number of cached keys.
    entries: usize,
    fresh: Duration,
}

#[derive(Debug, Default)]
struct Kept {
    known: HashMap<String, Known>,
    /// How often the cache was cleared. A key that was read from the store before the last clearing may be outdated.
    clears: u64,
}

#[derive(Clone, Debug)]
struct Known {
    sha256: [u8; 32],
    /// The digest before a rotation, and until when it is valid.
    old: Option<([u8; 32], OffsetDateTime)>,
    expires_at: Option<OffsetDateTime>,
    tenant: Arc<str>,
    key: Arc<CallerKey>,
    at: Instant,
}

impl Known {
    /// `None` if the key was revoked.
    fn of(found: StoredKey) -> Option<Known> {
        let StoredKey { record, expires_at, revoked_at, old_sha256, old_sha256_until, .. } = found;
        revoked_at.is_none().then(|| Known {
            sha256: record.sha256,
            old: old_sha256.zip(old_sha256_until),
            expires_at,
            tenant: record.tenant.into(),
            key: Arc::new(CallerKey { id: record.id, terms: record.terms }),
            at: Instant::now(),
        })
    }

    /// The digest of the key, and its digest before a rotation if the old digest is still valid at `now`.
    fn digests(&self, now: OffsetDateTime) -> impl Iterator<Item = [u8; 32]> {
        let old = self.old.filter(|(_, until)| now < *until).map(|(old, _)| old);
        std::iter::once(self.sha256).chain(old)
    }

    /// Whether this is the digest of the key, or the digest before a rotation, if the old digest is still valid at
    /// `now`.
    fn is(&self, sha256: &[u8; 32], now: OffsetDateTime) -> bool {
        self.digests(now).any(|digest| same(&digest, sha256))
    }

    /// The sender who has presented a key with this digest.
    fn caller(self, digest: Option<[u8; 32]>, now: OffsetDateTime) -> Result<Caller, ServiceError> {
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(ServiceError::KeyExpired);
        }
        Ok(Caller { tenant: self.tenant, key: Some(self.key), digest, allowances: Allowances::default(), trace: None })
    }
}

impl KeyCache {
    pub(super) fn new(entries: usize, fresh: Duration) -> KeyCache {
        KeyCache { kept: Arc::default(), entries, fresh }
    }

    fn find(&self, id: &str) -> Option<Known> {
        let kept = self.kept.lock();
        kept.known.get(id).filter(|known| known.at.elapsed() < self.fresh).cloned()
    }

    fn clears(&self) -> u64 {
        self.kept.lock().clears
    }

    /// Keeps a key that was read from the store when [`KeyCache::clears`] was `clears`, unless the cache was cleared
    /// since.
    fn keep(&self, key: Known, clears: u64) {
        let Kept { known, clears: now } = &mut *self.kept.lock();
        if *now != clears {
            return;
        }
        if known.len() >= self.entries {
            known.retain(|_, known| known.at.elapsed() < self.fresh);
        }
        if known.len() >= self.entries {
            known.clear();
        }
        known.insert(key.key.id.clone(), key);
    }

    /// Forgets all keys, because one was revoked or rotated.
    pub(super) fn clear(&self) {
        let mut kept = self.kept.lock();
        kept.known.clear();
        kept.clears += 1;
    }
}

impl Service {
    /// The sender of a request with this key, or without a key.
    ///
    /// Some programs, such as OpenAI's clients, always send a key. If no key is required and none was ever made, a text
    /// that does not look like a key of this server therefore counts as no key. Once keys exist, a wrong key is always
    /// an error; otherwise the sender would not notice that the request belongs to another tenant.
    ///
    /// # Errors
    /// [`ServiceError::MissingKey`], [`ServiceError::InvalidKey`], [`ServiceError::KeyExpired`], or an error of the
    /// store.
    pub async fn caller(&self, key: Option<&str>) -> Result<Caller, ServiceError> {
        let Some(text) = key else {
            return if self.0.accept_policy.key_required {
                Err(ServiceError::MissingKey)
            } else {
                Ok(Caller::anonymous())
            };
        };
        if !self.0.accept_policy.key_required && !ApiKey::is_like(text) && !self.query(self.0.store.has_keys()).await? {
            return Ok(Caller::anonymous());
        }
        let key = ApiKey::parse(text).ok_or(ServiceError::InvalidKey)?;
        let (sha256, now) = (key.sha256(), OffsetDateTime::now_utc());
        let known = self.known(&key.id, |known| known.is(&sha256, now)).await?;
        known.ok_or(ServiceError::InvalidKey)?.caller(Some(sha256), now)
    }

    /// The caller for whose key a URL is signed: the owner of the key with this id. `signed` gets a digest of the key
    /// and returns what the URL says if its signature is valid for that digest. `None` if the signature is valid for no
    /// digest of a valid key.
    ///
    /// # Errors
    /// [`ServiceError::KeyExpired`], [`ServiceError::ScopeMissing`], or an error of the store.
    pub async fn holder<T>(
        &self,
        id: &str,
        signed: impl Fn(&[u8; 32]) -> Option<T>,
    ) -> Result<Option<(Caller, T)>, ServiceError> {
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let now = OffsetDateTime::now_utc();
        let of = |known: &Known| known.digests(now).find_map(|digest| Some((digest, signed(&digest)?)));
        let Some(known) = self.known(id, |known| of(known).is_some()).await? else { return Ok(None) };
        let Some((digest, said)) = of(&known) else { return Ok(None) };
        let caller = known.caller(Some(digest), now)?;
        caller.require(Scope::Read)?;
        Ok(Some((caller, said)))
    }

    /// The key with this id, if it was not revoked and `fits`. If a cached key does not fit, another process may have
    /// rotated the key, so the store decides.
    async fn known(&self, id: &str, fits: impl Fn(&Known) -> bool) -> Result<Option<Known>, ServiceError> {
        if let Some(known) = self.0.keys.find(id).filter(|known| fits(known)) {
            return Ok(Some(known));
        }
        let clears = self.0.keys.clears();
        let found = self.query(self.0.store.find_key(id)).await?.and_then(Known::of).filter(|known| fits(known));
        if let Some(known) = &found {
            self.0.keys.keep(known.clone(), clears);
            self.mark_used(id.to_owned());
        }
        Ok(found)
    }

    /// Whether the sender of an open stream may still read: its key is valid and has the scope `read`. A secret from
    /// before a rotation is valid during `grace_s`.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn may_still_read(&self, caller: &Caller) -> Result<bool, ServiceError> {
        let (Some(CallerKey { id, .. }), Some(digest)) = (caller.key.as_deref(), caller.digest) else {
            return Ok(caller.key.is_none());
        };
        let now = OffsetDateTime::now_utc();
        let known = self.known(id, |known| known.is(&digest, now)).await?;
        let caller = known.and_then(|known| known.caller(Some(digest), now).ok());
        Ok(caller.is_some_and(|caller| caller.require(Scope::Read).is_ok()))
    }

    /// Notes the use of a key without delaying the request. A key in use is marked whenever its cache entry is renewed.
    fn mark_used(&self, id: String) {
        let store = self.0.store.clone();
        self.0.tasks.spawn(async move {
            if let Err(error) = store.mark_key_used(&id).await {
                tracing::debug!(%error, "the last use of a key is not noted");
            }
        });
    }

    /// The cache of keys, for the [`Bus`](super::Bus), which clears it when other processes change keys.
    pub fn key_cache(&self) -> KeyCache {
        self.0.keys.clone()
    }

    pub async fn create_key(&self, fields: Fields) -> Result<(ApiKey, StoredKey), ServiceError> {
        self.in_time(self.key_ring().create(fields)).await
    }

    pub async fn list_keys(&self, query: &KeyQuery) -> Result<Page<StoredKey>, ServiceError> {
        self.in_time(self.key_ring().list(query)).await
    }

    /// Revokes a key; this process refuses it from now on, others within `auth.cache_s`.
    pub async fn revoke_key(&self, id: &str) -> Result<StoredKey, ServiceError> {
        let revoked = self.in_time(self.key_ring().revoke(id)).await;
        self.0.keys.clear();
        revoked
    }

    pub async fn rotate_key(&self, id: &str, fields: Fields) -> Result<(ApiKey, StoredKey), ServiceError> {
        let rotated = self.in_time(self.key_ring().rotate(id, fields)).await;
        self.0.keys.clear();
        rotated
    }

    /// The usage of the sender's tenant and key on the last `days` days that have any usage.
    pub async fn usage(&self, caller: &Caller, days: usize) -> Result<Vec<UsageOfDay>, ServiceError> {
        let key = caller.key.as_ref().map_or("", |key| &key.id);
        self.query(self.0.store.usage(&caller.tenant, key, days)).await
    }

    /// Stores in `caller` what the sender's key has left of its limits.
    pub async fn note_allowances(&self, caller: &Caller) -> Result<(), ServiceError> {
        if let Some(key) = caller.limited_key() {
            let spent = self.query(self.0.store.spent(&key.id)).await?.ok_or(ServiceError::InvalidKey)?;
            caller.allowances.set(key.terms.allowances(&spent));
        }
        Ok(())
    }

    /// Refuses a generation beyond the limits of the sender's key before any further work. Accepting the generation
    /// checks the limits again.
    pub(super) async fn check_limits(&self, caller: &Caller, cost: f64) -> Result<(), ServiceError> {
        let Some(key) = caller.limited_key() else { return Ok(()) };
        let spent = self.query(self.0.store.spent(&key.id)).await?.ok_or(ServiceError::InvalidKey)?;
        caller.allowances.set(key.terms.allowances(&spent));
        Ok(key.terms.check(&spent, cost).map_err(crate::ledger::Refusal::from)?)
    }

    fn key_ring(&self) -> KeyRing {
        KeyRing { store: self.0.store.clone(), caps: self.0.accept_policy.tenant_caps }
    }
}

/// Compares two digests in constant time, so that timing reveals nothing about them.
pub fn same(kept: &[u8; 32], shown: &[u8; 32]) -> bool {
    let differing = kept.iter().zip(shown).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::KeyTerms;

    fn known(id: &str) -> Known {
        let key = Arc::new(CallerKey { id: id.to_owned(), terms: KeyTerms::default() });
        Known { sha256: [7; 32], old: None, expires_at: None, tenant: "a".into(), key, at: Instant::now() }
    }

    #[test]
    fn at_most_the_maximum_of_keys_is_cached() {
        let keys = KeyCache::new(2, Duration::from_secs(3600));
        for id in ["a", "b", "c"] {
            keys.keep(known(id), 0);
            assert!(keys.find(id).is_some());
        }
        assert!(keys.kept.lock().known.len() <= 2);
        let stale = KeyCache::new(2, Duration::ZERO);
        stale.keep(known("a"), 0);
        assert!(stale.find("a").is_none());
    }

    #[test]
    fn a_key_that_was_read_before_a_change_is_not_remembered() {
        let keys = KeyCache::new(2, Duration::from_secs(3600));
        let before = keys.clears();
        keys.keep(known("a"), before);
        keys.clear();
        assert!(keys.find("a").is_none());
        keys.keep(known("a"), before);
        assert!(keys.find("a").is_none());
        keys.keep(known("a"), keys.clears());
        assert!(keys.find("a").is_some());
    }

    #[test]
    fn a_rotated_key_has_its_old_digest_until_the_grace_is_over_and_an_expired_one_none() {
        let now = OffsetDateTime::now_utc();
        let rotated = Known { old: Some(([8; 32], now)), ..known("a") };
        let before = now - Duration::from_secs(1);
        assert!(rotated.is(&[7; 32], now) && rotated.is(&[7; 32], before) && rotated.is(&[8; 32], before));
        assert!(!rotated.is(&[8; 32], now) && !rotated.is(&[9; 32], before));
        let ends = Known { expires_at: Some(now), ..known("a") };
        assert!(ends.clone().caller(None, before).is_ok());
        assert!(matches!(ends.caller(None, now), Err(ServiceError::KeyExpired)));
    }

    #[test]
    fn digests_are_equal_only_if_every_byte_is_equal() {
        assert!(same(&[7; 32], &[7; 32]));
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] = 6;
            assert!(!same(&[7; 32], &other));
        }
    }
}
