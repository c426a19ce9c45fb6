//! Finds the tenant of a request by its API key, and makes API keys.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{ANONYMOUS, Service, ServiceError, api_key::ApiKey};
use crate::{
    generation::{Fields, Invalid},
    ledger::KeyRecord,
};

/// The properties of a new key.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub tenant: String,
    pub weight: f64,
    pub max_queued: u32,
    pub max_running: u32,
}

impl NewKey {
    /// Reads the fields `tenant`, `weight`, `max_queued` and `max_running`; `caps` are the defaults of the last two.
    ///
    /// # Errors
    /// All invalid fields at once.
    pub fn read(mut fields: Fields, caps: (u32, u32)) -> Result<NewKey, Invalid> {
        let given = fields.text("tenant", 64);
        let tenant = given.clone().unwrap_or_default();
        let of_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if given.is_none() && !fields.has_errors() {
            fields.error("tenant", "required", "is required");
        } else if given.is_some()
            && !(tenant.bytes().all(of_name) && tenant.starts_with(|c: char| c.is_ascii_alphanumeric()))
        {
            fields.error("tenant", "invalid_value", "must match [a-z0-9][a-z0-9._-]{0,63}");
        } else if tenant == ANONYMOUS {
            fields.error("tenant", "invalid_value", format!("cannot be {ANONYMOUS}, which is everybody without a key"));
        }
        let weight = fields.number("weight", 0.001, 1000.0).unwrap_or(1.0);
        let mut cap = |name, default| {
            let cap = fields.integer(name, 1, 1_000_000).and_then(|cap| u32::try_from(cap).ok());
            cap.unwrap_or(default)
        };
        let (max_queued, max_running) = (cap("max_queued", caps.0), cap("max_running", caps.1));
        match fields.finish() {
            errors if errors.is_empty() => Ok(NewKey { tenant, weight, max_queued, max_running }),
            errors => Err(Invalid { errors }),
        }
    }

    /// Makes the key and the record that the store keeps. The text of the key is not stored.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn make(self) -> Result<(ApiKey, KeyRecord), getrandom::Error> {
        let key = ApiKey::new()?;
        let record = KeyRecord {
            id: key.id.clone(),
            sha256: key.sha256(),
            tenant: self.tenant,
            weight: self.weight,
            max_queued: Some(self.max_queued),
            max_running: Some(self.max_running),
        };
        Ok((key, record))
    }
}

/// A cache of keys that were found in the store.
#[derive(Debug)]
pub(super) struct Keys {
    known: Mutex<HashMap<String, Known>>,
    /// Maximum number of cached keys.
    entries: usize,
    fresh: Duration,
}

#[derive(Clone, Debug)]
struct Known {
    sha256: [u8; 32],
    tenant: Arc<str>,
    at: Instant,
}

impl Keys {
    pub(super) fn new(entries: usize, fresh: Duration) -> Keys {
        Keys { known: Mutex::default(), entries, fresh }
    }

    fn find(&self, id: &str) -> Option<Known> {
        let known = self.known.lock();
        known.get(id).filter(|known| known.at.elapsed() < self.fresh).cloned()
    }

    fn keep(&self, id: String, key: Known) {
        let mut known = self.known.lock();
        if known.len() >= self.entries {
            known.retain(|_, known| known.at.elapsed() < self.fresh);
        }
        if known.len() >= self.entries {
            known.clear();
        }
        known.insert(id, key);
    }
}

impl Service {
    /// The tenant of a request with this key, or without a key.
    ///
    /// Some programs, such as OpenAI's clients, always send a key. If no key is required and none was ever made, a text
    /// that does not look like a key of this server therefore counts as no key. Once keys exist, a wrong key is always
    /// an error; otherwise its sender would not notice that the request belongs to another tenant.
    ///
    /// # Errors
    /// [`ServiceError::MissingKey`], [`ServiceError::InvalidKey`], or an error of the store.
    pub async fn tenant(&self, key: Option<&str>) -> Result<Arc<str>, ServiceError> {
        let Some(text) = key else {
            return if self.0.accept_policy.key_required {
                Err(ServiceError::MissingKey)
            } else {
                Ok(ANONYMOUS.into())
            };
        };
        if !self.0.accept_policy.key_required && !ApiKey::is_like(text) && !self.query(self.0.store.has_keys()).await? {
            return Ok(ANONYMOUS.into());
        }
        let key = ApiKey::parse(text).ok_or(ServiceError::InvalidKey)?;
        let known = match self.0.keys.find(&key.id) {
            Some(known) => known,
            None => {
                let found = self.query(self.0.store.find_key(&key.id)).await?.ok_or(ServiceError::InvalidKey)?;
                let known = Known { sha256: found.sha256, tenant: found.tenant.into(), at: Instant::now() };
                self.0.keys.keep(key.id.clone(), known.clone());
                known
            }
        };
        if same(&known.sha256, &key.sha256()) { Ok(known.tenant) } else { Err(ServiceError::InvalidKey) }
    }

    /// Makes a key with these properties and stores its record.
    pub async fn create_key(&self, fields: Fields) -> Result<(ApiKey, KeyRecord), ServiceError> {
        let new = NewKey::read(fields, self.0.accept_policy.tenant_caps)?;
        let (key, record) = new.make().map_err(|error| ServiceError::NoRandomness(error.to_string()))?;
        self.query(self.0.store.create_key(&record)).await?;
        Ok((key, record))
    }
}

/// Compares two digests in constant time, so that timing reveals nothing about them.
fn same(kept: &[u8; 32], shown: &[u8; 32]) -> bool {
    let differing = kept.iter().zip(shown).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<NewKey, Vec<String>> {
        let Value::Object(map) = value else { panic!("{value} is no request") };
        let read = NewKey::read(Fields::new(map), (100, 8));
        read.map_err(|invalid| invalid.errors.into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn a_key_is_for_a_tenant_with_a_plain_name() {
        let key = read(json!({"tenant": "studio-7"})).unwrap();
        assert_eq!((&*key.tenant, key.weight, key.max_queued, key.max_running), ("studio-7", 1.0, 100, 8));
        let key = read(json!({"tenant": "a", "weight": 2.5, "max_queued": 3, "max_running": 1})).unwrap();
        assert_eq!((key.weight, key.max_queued, key.max_running), (2.5, 3, 1));
        for tenant in [json!(null), json!(""), json!("default"), json!("Studio"), json!("../a"), json!("-a"), json!(7)]
        {
            assert_eq!(read(json!({"tenant": tenant})).unwrap_err(), ["/tenant"], "{tenant}");
        }
        assert_eq!(
            read(json!({"tenant": "a", "weight": 0, "max_queued": 0, "max_running": 0.5, "colour": 1})).unwrap_err(),
            ["/weight", "/max_queued", "/max_running", "/colour"]
        );
    }

    #[test]
    fn no_more_keys_are_remembered_than_may_be() {
        let known = || Known { sha256: [0; 32], tenant: "a".into(), at: Instant::now() };
        let keys = Keys::new(2, Duration::from_secs(3600));
        for id in ["a", "b", "c"] {
            keys.keep(id.to_owned(), known());
            assert!(keys.find(id).is_some());
        }
        assert!(keys.known.lock().len() <= 2);
        let stale = Keys::new(2, Duration::ZERO);
        stale.keep("a".to_owned(), known());
        assert!(stale.find("a").is_none());
    }

    #[test]
    fn digests_are_the_same_in_every_byte_or_not() {
        assert!(same(&[7; 32], &[7; 32]));
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] = 6;
            assert!(!same(&[7; 32], &other));
        }
    }
}
