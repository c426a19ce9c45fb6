//! API keys and their tenants.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{
    Ledger, Page, Result,
    change::atomically,
    dialect::{Value, values},
    row::{Row, from_row},
};
use crate::generation::KeyTerms;

/// An API key with its tenant. The key itself is not stored.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRecord {
    /// The public part of the key.
    pub id: String,
    /// SHA-256 of the whole key.
    pub sha256: [u8; 32],
    pub tenant: String,
    /// The tenant's share of the workers, relative to other tenants; greater than 0.
    pub weight: f64,
    /// Maximum numbers of queued and of running generations of the tenant; `None` means no bound.
    pub max_queued: Option<u32>,
    pub max_running: Option<u32>,
    pub terms: KeyTerms,
}

/// A key in the store, whether or not it is still valid.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredKey {
    pub record: KeyRecord,
    pub created_at: OffsetDateTime,
    pub last_used_at: Option<OffsetDateTime>,
    pub expires_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
    /// SHA-256 of the key before the last rotation, and until when it is valid.
    pub old_sha256: Option<[u8; 32]>,
    pub old_sha256_until: Option<OffsetDateTime>,
}

/// Filters of a list of keys.
#[derive(Clone, Debug, Default)]
pub struct KeyQuery {
    pub tenant: Option<String>,
    /// Only keys whose public part comes after this one.
    pub after: Option<String>,
    pub limit: usize,
}

/// The statement whose rows [`stored`] reads.
const STORED: &str = "SELECT api_keys.id AS id, sha256, tenant_id AS tenant, weight, max_queued, max_running, terms,
     api_keys.created_at AS created_at, last_used_at, expires_at, revoked_at, old_sha256, old_sha256_until
     FROM api_keys JOIN tenants ON tenants.id = tenant_id";

/// The methods of the ledger for API keys and tenants.
#[async_trait]
pub trait Keys: AsRef<Ledger> + Send + Sync + 'static {
    /// Creates an API key and, if missing, its tenant. The tenant gets the weight and the bounds of `key`. A key whose
    /// public part exists is an error and changes nothing.
    async fn create_key(&self, key: &KeyRecord) -> Result<()> {
        atomically!(self, |change| {
            let text =
                "INSERT INTO tenants (id, weight, max_queued, max_running, created_at) VALUES ($1, $2, $3, $4, now())
                 ON CONFLICT (id) DO UPDATE SET weight = excluded.weight, max_queued = excluded.max_queued,
                     max_running = excluded.max_running";
            change.fetch(text, values![&key.tenant, key.weight, key.max_queued, key.max_running]).await?;
            let text = "INSERT INTO api_keys (id, sha256, tenant_id, terms, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, now(), now() + $5)";
            let valid_for = key.terms.expires_in_s.map(Duration::from_secs);
            let values = values![&key.id, &key.sha256, &key.tenant, Value::json(&key.terms)?, valid_for];
            change.fetch(text, values).await?;
            Ok(())
        })
    }

    /// Whether any key was ever made, revoked or not.
    async fn has_keys(&self) -> Result<bool> {
        let any = "SELECT EXISTS (SELECT 1 FROM api_keys) AS has_keys";
        Ok(self.as_ref().read_one(any, values![]).await?.get("has_keys")?)
    }

    /// The key with this public part.
    async fn find_key(&self, id: &str) -> Result<Option<StoredKey>> {
        let row = self.as_ref().read(&format!("{STORED} WHERE api_keys.id = $1"), values![id]).await?.pop();
        row.as_ref().map(stored).transpose()
    }

    /// The keys in the order of their public parts.
    async fn list_keys(&self, query: &KeyQuery) -> Result<Page<StoredKey>> {
        let text = format!(
            "{STORED} WHERE ($1 IS NULL OR tenant_id = $1) AND ($2 IS NULL OR api_keys.id > $2)
             ORDER BY api_keys.id LIMIT $3"
        );
        let values = values![query.tenant.as_ref(), query.after.as_ref(), query.limit.saturating_add(1)];
        let rows = self.as_ref().read(&text, values).await?;
        let records = rows.iter().take(query.limit).map(stored).collect::<Result<_, _>>()?;
        Ok(Page { records, has_more: rows.len() > query.limit })
    }

    /// Revokes a key for good. From now on, `accept` refuses its generations. `None` if there is no such key.
    async fn revoke_key(&self, id: &str) -> Result<Option<StoredKey>> {
        let text = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1";
        self.as_ref().write(text, values![id]).await?;
        self.find_key(id).await
    }

    /// Replaces the digest of a key that was not revoked. For `grace`, the old digest is valid too.
    async fn rotate_key(&self, id: &str, sha256: &[u8; 32], grace: Duration) -> Result<Option<StoredKey>> {
        // A retry of this call must not replace the old digest by the new one.
        let text = "UPDATE api_keys
             SET old_sha256 = CASE WHEN sha256 = $2 THEN old_sha256 ELSE sha256 END, old_sha256_until = now() + $3,
                 sha256 = $2
             WHERE id = $1 AND revoked_at IS NULL";
        self.as_ref().write(text, values![id, sha256, grace]).await?;
        Ok(self.find_key(id).await?.filter(|key| key.record.sha256 == *sha256))
    }

    /// Notes that a key was used now.
    async fn mark_key_used(&self, id: &str) -> Result<()> {
        self.as_ref().write("UPDATE api_keys SET last_used_at = now() WHERE id = $1", values![id]).await.map(drop)
    }
}

fn stored(row: &Row) -> Result<StoredKey> {
    let record = from_row!(row => KeyRecord {
        id, sha256, tenant, weight, max_queued, max_running; terms: row.json("terms")?
    });
    Ok(from_row!(row => StoredKey {
        created_at, last_used_at, expires_at, revoked_at, old_sha256, old_sha256_until; record: record
    }))
}
