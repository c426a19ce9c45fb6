//! Registered receivers.

use std::time::Duration;

use sqlx::{Row, sqlite::SqliteRow};

use crate::generation::{EndpointId, SigningSecret};
use crate::ledger::{Endpoint, EndpointTerms, NewEndpoint, StoreError};

use super::{bytes, deliveries, moment, unreadable};
use crate::ledger::sqlite::{SqliteStore, change::Change, row};

pub async fn create(store: &SqliteStore, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>, StoreError> {
    let mut change = Change::begin(store).await?;
    let now = change.now;
    let had: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_endpoints WHERE tenant_id = ?")
        .bind(new.tenant)
        .fetch_one(change.connection())
        .await?;
    if row::size(had) >= most {
        return Ok(None);
    }
    let created = sqlx::query(
        "INSERT INTO webhook_endpoints
             (id, tenant_id, url, events, description, enabled, secret, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
         RETURNING *",
    )
    .bind(&new.id.as_bytes()[..])
    .bind(new.tenant)
    .bind(&new.terms.url)
    .bind(row::json(&new.terms.events)?)
    .bind(&new.terms.description)
    .bind(new.terms.enabled)
    .bind(new.secret.reveal())
    .bind(now)
    .fetch_one(change.connection())
    .await?;
    let endpoint = endpoint(&created)?;
    change.commit().await?;
    Ok(Some(endpoint))
}

pub async fn list(store: &SqliteStore, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
    let rows = sqlx::query("SELECT * FROM webhook_endpoints WHERE tenant_id = ? ORDER BY id")
        .bind(tenant)
        .fetch_all(&store.readers)
        .await?;
    rows.iter().map(endpoint).collect()
}

pub async fn get(store: &SqliteStore, tenant: &str, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
    let row = sqlx::query("SELECT * FROM webhook_endpoints WHERE id = ? AND tenant_id = ?")
        .bind(&id.as_bytes()[..])
        .bind(tenant)
        .fetch_optional(&store.readers)
        .await?;
    row.as_ref().map(endpoint).transpose()
}

pub async fn replace(
    store: &SqliteStore,
    tenant: &str,
    id: EndpointId,
    terms: &EndpointTerms,
) -> Result<Option<Endpoint>, StoreError> {
    let mut change = Change::begin(store).await?;
    let now = change.now;
    let replaced = sqlx::query(
        "UPDATE webhook_endpoints
         SET url = ?3, events = ?4, description = ?5, enabled = ?6, gone = gone AND NOT ?6, updated_at = ?7
         WHERE id = ?1 AND tenant_id = ?2
         RETURNING *",
    )
    .bind(&id.as_bytes()[..])
    .bind(tenant)
    .bind(&terms.url)
    .bind(row::json(&terms.events)?)
    .bind(&terms.description)
    .bind(terms.enabled)
    .bind(now)
    .fetch_optional(change.connection())
    .await?;
    let Some(replaced) = replaced else { return Ok(None) };
    if !terms.enabled {
        deliveries::give_up(&mut change, id).await?;
    }
    let endpoint = endpoint(&replaced)?;
    change.commit().await?;
    Ok(Some(endpoint))
}

pub async fn delete(store: &SqliteStore, tenant: &str, id: EndpointId) -> Result<bool, StoreError> {
    // The deliveries go with it, by their foreign key.
    let deleted = sqlx::query("DELETE FROM webhook_endpoints WHERE id = ? AND tenant_id = ?")
        .bind(&id.as_bytes()[..])
        .bind(tenant)
        .execute(&store.writer)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

pub async fn rotate(
    store: &SqliteStore,
    tenant: &str,
    id: EndpointId,
    secret: &SigningSecret,
    overlap: Duration,
) -> Result<Option<Endpoint>, StoreError> {
    let mut change = Change::begin(store).await?;
    let now = change.now;
    let rotated = sqlx::query(
        "UPDATE webhook_endpoints SET old_secret = secret, old_secret_until = ?4, secret = ?3, updated_at = ?5
         WHERE id = ?1 AND tenant_id = ?2
         RETURNING *",
    )
    .bind(&id.as_bytes()[..])
    .bind(tenant)
    .bind(secret.reveal())
    .bind(now.saturating_add(row::millis(overlap)))
    .bind(now)
    .fetch_optional(change.connection())
    .await?;
    let endpoint = rotated.as_ref().map(endpoint).transpose()?;
    change.commit().await?;
    Ok(endpoint)
}

fn endpoint(row: &SqliteRow) -> Result<Endpoint, StoreError> {
    let events: &str = row.try_get("events")?;
    let terms = EndpointTerms {
        url: row.try_get("url")?,
        events: serde_json::from_str(events).map_err(|_| unreadable("an endpoint's events"))?,
        description: row.try_get("description")?,
        enabled: row.try_get("enabled")?,
    };
    let time = |column| moment(row, column)?.ok_or_else(|| unreadable(column));
    Ok(Endpoint {
        id: EndpointId::from_bytes(bytes(row, "id")?),
        terms,
        gone: row.try_get("gone")?,
        old_secret_until: moment(row, "old_secret_until")?,
        created_at: time("created_at")?,
        updated_at: time("updated_at")?,
    })
}
