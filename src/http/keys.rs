//! `/admin/keys`: API keys, as the operator sees them.

use axum::{
    extract::{RawQuery, State},
    http::header,
    response::{AppendHeaders, IntoResponse, Json, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    error::{ApiError, success},
    list::Page,
    path::KeyName,
    url, urlencoded,
};
use crate::{
    generation::{Fields, Invalid, Priority, SafetyPolicy, Scope, rfc3339},
    ledger::{KeyQuery, StoredKey},
    service::{ApiKey, Service},
};

/// An API key. The field `key` contains the key with its secret. Only the answer to the request that creates or rotates
/// the key has this field.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyObject {
    object: String,
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub name: String,
    pub tenant: String,
    pub weight: f64,
    pub max_queued: Option<u32>,
    pub max_running: Option<u32>,
    pub scopes: Vec<Scope>,
    /// The models that the key may use; empty if it may use every model.
    pub models: Vec<String>,
    pub max_priority: Priority,
    pub rate_limit: Option<u32>,
    pub rate_window_s: Option<u32>,
    /// In 10⁹ multiplications.
    pub max_cost_per_day: Option<u64>,
    /// The policy for flagged pictures; `None` if it is the setting `safety.policy`.
    #[serde(default)]
    pub safety: Option<SafetyPolicy>,
    pub created_at: String,
    /// The last recorded use, which may be up to `auth.cache_s` earlier than the real last use.
    pub last_used_at: Option<String>,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    /// When the previous secret of a rotated key expires.
    pub old_key_expires_at: Option<String>,
}

impl From<StoredKey> for KeyObject {
    fn from(stored: StoredKey) -> KeyObject {
        let StoredKey { record, created_at, last_used_at, expires_at, revoked_at, old_sha256_until, .. } = stored;
        let terms = record.terms;
        KeyObject {
            object: "key".to_owned(),
            id: record.id,
            key: None,
            name: terms.name,
            tenant: record.tenant,
            weight: record.weight,
            max_queued: record.max_queued,
            max_running: record.max_running,
            scopes: terms.scopes,
            models: terms.models,
            max_priority: terms.max_priority,
            rate_limit: terms.rate_limit.map(|limit| limit.requests),
            rate_window_s: terms.rate_limit.map(|limit| limit.window_s),
            max_cost_per_day: terms.max_cost_per_day,
            safety: terms.safety,
            created_at: rfc3339(created_at),
            last_used_at: last_used_at.map(rfc3339),
            expires_at: expires_at.map(rfc3339),
            revoked_at: revoked_at.map(rfc3339),
            old_key_expires_at: old_sha256_until.map(rfc3339),
        }
    }
}

impl KeyObject {
    /// The object that shows the key.
    pub fn with_secret((key, stored): (ApiKey, StoredKey)) -> KeyObject {
        KeyObject { key: Some(key.expose().to_owned()), ..stored.into() }
    }
}

const NO_STORE: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

/// `POST /admin/keys`: creates an API key, and its tenant if the tenant does not exist. The tenant has the weight and
/// the limits of its newest key.
pub async fn create(State(service): State<Service>, fields: Fields) -> Result<Response, ApiError> {
    let made = KeyObject::with_secret(service.create_key(fields).await?);
    Ok((success::CREATED, NO_STORE, Json(made)).into_response())
}

/// `GET /admin/keys`: lists the keys of all tenants or of one, also revoked keys.
pub async fn list(State(service): State<Service>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = read(query.as_deref())?;
    let page = service.list_keys(&query).await?;
    let ids: Vec<&str> = page.records.iter().map(|key| &*key.record.id).collect();
    let next = ids.last().filter(|_| page.has_more).map(|last| {
        let shared = [("limit", Some(query.limit.to_string())), ("after", Some((*last).to_owned()))];
        let own = [("tenant", query.tenant.clone())];
        (header::LINK, url::next_page("/admin/keys", shared.into_iter().chain(own)))
    });
    let list = Json(Page::of(page.records.iter().cloned().map(KeyObject::from).collect(), &ids, page.has_more));
    Ok((AppendHeaders(next), NO_STORE, list).into_response())
}

fn read(query: Option<&str>) -> Result<KeyQuery, ApiError> {
    let mut fields = urlencoded::query(query)?;
    let limit = fields.integer("limit", 1, 1000).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(100);
    let query = KeyQuery { tenant: fields.text("tenant", 64), after: fields.text("after", 64), limit };
    match fields.finish() {
        errors if errors.is_empty() => Ok(query),
        errors => Err(ApiError::Invalid(Invalid { errors })),
    }
}

/// `POST /admin/keys/{id}/revoke`: revokes a key for good.
pub async fn revoke(State(service): State<Service>, KeyName(id): KeyName) -> Result<Response, ApiError> {
    Ok((NO_STORE, Json(KeyObject::from(service.revoke_key(&id).await?))).into_response())
}

/// `POST /admin/keys/{id}/rotate`: gives a key a new secret.
pub async fn rotate(
    State(service): State<Service>,
    KeyName(id): KeyName,
    fields: Fields,
) -> Result<Response, ApiError> {
    Ok((NO_STORE, Json(KeyObject::with_secret(service.rotate_key(&id, fields).await?))).into_response())
}
