//! Creates, lists, revokes and rotates API keys, for the operator's routes and the command line.

use std::{sync::Arc, time::Duration};

use super::{ApiKey, NewKey, ServiceError};
use crate::{
    generation::{Fields, Invalid},
    ledger::{Hint, KeyQuery, Page, Serving, StoredKey},
};

/// The keys in a store.
#[derive(Clone)]
pub struct KeyRing {
    pub store: Arc<dyn Serving>,
    /// The default maximum numbers of queued and of running generations of a tenant.
    pub caps: (u32, u32),
}

/// Longest time that the old secret of a rotated key stays valid.
const LONGEST_GRACE_S: u64 = 30 * 86_400;

impl KeyRing {
    /// Makes a key with the properties of [`NewKey::read`], and stores its record.
    pub async fn create(&self, fields: Fields) -> Result<(ApiKey, StoredKey), ServiceError> {
        let (key, record) = NewKey::read(fields, self.caps)?.make().map_err(no_randomness)?;
        self.store.create_key(&record).await?;
        let stored = self.store.find_key(&record.id).await?.ok_or(ServiceError::NoSuchKey)?;
        Ok((key, stored))
    }

    pub async fn list(&self, query: &KeyQuery) -> Result<Page<StoredKey>, ServiceError> {
        Ok(self.store.list_keys(query).await?)
    }

    /// Revokes a key for good.
    pub async fn revoke(&self, id: &str) -> Result<StoredKey, ServiceError> {
        let revoked = self.store.revoke_key(known(id)?).await?.ok_or(ServiceError::NoSuchKey)?;
        self.store.hint(&[Hint::KeysChanged]).await?;
        Ok(revoked)
    }

    /// Gives a key a new secret. The old secret stays valid for the `grace_s` of the fields, by default 0.
    pub async fn rotate(&self, id: &str, mut fields: Fields) -> Result<(ApiKey, StoredKey), ServiceError> {
        let grace_s = fields.integer("grace_s", 0, LONGEST_GRACE_S).unwrap_or(0);
        let errors = fields.finish();
        if !errors.is_empty() {
            return Err(Invalid { errors }.into());
        }
        let found = self.store.find_key(known(id)?).await?.ok_or(ServiceError::NoSuchKey)?;
        if found.revoked_at.is_some() {
            return Err(ServiceError::KeyRevoked);
        }
        let key = ApiKey::with_id(id).map_err(no_randomness)?;
        let rotated = self.store.rotate_key(id, &key.sha256(), Duration::from_secs(grace_s)).await?;
        self.store.hint(&[Hint::KeysChanged]).await?;
        Ok((key, rotated.ok_or(ServiceError::KeyRevoked)?))
    }
}

/// Returns `id` if it consists of visible ASCII characters only, as the id of every key does; otherwise no such key
/// exists. Thus, PostgreSQL never receives a text that it would refuse, such as a text with a zero byte.
fn known(id: &str) -> Result<&str, ServiceError> {
    if id.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(id) } else { Err(ServiceError::NoSuchKey) }
}

fn no_randomness(error: getrandom::Error) -> ServiceError {
    ServiceError::NoRandomness(error.to_string())
}
