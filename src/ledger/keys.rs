//! API keys and their tenants.

use async_trait::async_trait;

use super::{Ledger, Result, change::atomically, dialect::values, row::from_row};

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
    /// Most generations of the tenant that may be queued and that may run; `None` means no bound.
    pub max_queued: Option<u32>,
    pub max_running: Option<u32>,
}

/// The role for API keys and tenants.
#[async_trait]
pub trait Keys: AsRef<Ledger> + Send + Sync + 'static {
    /// Creates an API key and, if missing, its tenant. The weight and the bounds become the tenant's. A key whose
    /// public part exists is an error and changes nothing.
    async fn create_key(&self, key: &KeyRecord) -> Result<()> {
        atomically!(self, |change| {
            let text =
                "INSERT INTO tenants (id, weight, max_queued, max_running, created_at) VALUES ($1, $2, $3, $4, now())
                 ON CONFLICT (id) DO UPDATE SET weight = excluded.weight, max_queued = excluded.max_queued,
                     max_running = excluded.max_running";
            change.fetch(text, values![&key.tenant, key.weight, key.max_queued, key.max_running]).await?;
            let text = "INSERT INTO api_keys (id, sha256, tenant_id, created_at) VALUES ($1, $2, $3, now())";
            change.fetch(text, values![&key.id, &key.sha256, &key.tenant]).await?;
            Ok(())
        })
    }

    /// Whether any key was ever made, revoked or not.
    async fn has_keys(&self) -> Result<bool> {
        let any = "SELECT EXISTS (SELECT 1 FROM api_keys) AS has_keys";
        Ok(self.as_ref().read_one(any, values![]).await?.get("has_keys")?)
    }

    /// The key with this public part, unless it was revoked.
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>> {
        let text =
            "SELECT api_keys.id AS id, sha256, tenant_id AS tenant, weight, max_queued, max_running FROM api_keys
             JOIN tenants ON tenants.id = tenant_id WHERE api_keys.id = $1 AND revoked_at IS NULL";
        let row = self.as_ref().read(text, values![id]).await?.pop();
        row.map(|row| Ok(from_row!(row => KeyRecord { id, sha256, tenant, weight, max_queued, max_running })))
            .transpose()
    }
}
