//! Registered receivers.

use std::time::Duration;

use sqlx::{Row, postgres::PgRow, types::Json};

use crate::generation::{EndpointId, SigningSecret};
use crate::ledger::{Endpoint, EndpointTerms, NewEndpoint, StoreError};

use super::{bytes, deliveries, moment, unreadable, uuid_of_endpoint};
use crate::ledger::postgres::{PgStore, change::Change, row};

/// What [`endpoint`] reads.
macro_rules! columns {
    () => {
        "id, url, events, description, enabled, gone, old_secret_until, created_at, updated_at"
    };
}

/// Those who create endpoints of one tenant at the same time do so one after the other, so that the count is exact.
const CREATING: i32 = 0x77_68_65;

pub async fn create(store: &PgStore, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>, StoreError> {
    let mut change = Change::begin(store).await?;
    let created = insert(&mut change, new, most).await;
    change.conclude(created).await
}

async fn insert(change: &mut Change, new: &NewEndpoint<'_>, most: usize) -> Result<Option<Endpoint>, StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(CREATING)
        .bind(new.tenant)
        .execute(change.connection())
        .await?;
    let had: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_endpoints WHERE tenant_id = $1")
        .bind(new.tenant)
        .fetch_one(change.connection())
        .await?;
    if row::size(had) >= most {
        return Ok(None);
    }
    let created = sqlx::query(concat!(
        "INSERT INTO webhook_endpoints (id, tenant_id, url, events, description, enabled, secret, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, statement_timestamp(), statement_timestamp())
         RETURNING ",
        columns!()
    ))
    .bind(uuid_of_endpoint(new.id))
    .bind(new.tenant)
    .bind(&new.terms.url)
    .bind(Json(&new.terms.events))
    .bind(&new.terms.description)
    .bind(new.terms.enabled)
    .bind(new.secret.reveal())
    .fetch_one(change.connection())
    .await?;
    endpoint(&created).map(Some)
}

pub async fn list(store: &PgStore, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
    let mut loan = store.lend().await?;
    let sql = concat!("SELECT ", columns!(), " FROM webhook_endpoints WHERE tenant_id = $1 ORDER BY id");
    let rows = sqlx::query(sql).bind(tenant).fetch_all(&mut *loan).await?;
    loan.give_back();
    rows.iter().map(endpoint).collect()
}

pub async fn get(store: &PgStore, tenant: &str, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
    let mut loan = store.lend().await?;
    let sql = concat!("SELECT ", columns!(), " FROM webhook_endpoints WHERE id = $1 AND tenant_id = $2");
    let row = sqlx::query(sql).bind(uuid_of_endpoint(id)).bind(tenant).fetch_optional(&mut *loan).await?;
    loan.give_back();
    row.as_ref().map(endpoint).transpose()
}

pub async fn replace(
    store: &PgStore,
    tenant: &str,
    id: EndpointId,
    terms: &EndpointTerms,
) -> Result<Option<Endpoint>, StoreError> {
    let mut change = Change::begin(store).await?;
    let replaced = update(&mut change, tenant, id, terms).await;
    change.conclude(replaced).await
}

async fn update(
    change: &mut Change,
    tenant: &str,
    id: EndpointId,
    terms: &EndpointTerms,
) -> Result<Option<Endpoint>, StoreError> {
    let replaced = sqlx::query(concat!(
        "UPDATE webhook_endpoints
         SET url = $3, events = $4, description = $5, enabled = $6, gone = gone AND NOT $6,
             updated_at = statement_timestamp()
         WHERE id = $1 AND tenant_id = $2
         RETURNING ",
        columns!()
    ))
    .bind(uuid_of_endpoint(id))
    .bind(tenant)
    .bind(&terms.url)
    .bind(Json(&terms.events))
    .bind(&terms.description)
    .bind(terms.enabled)
    .fetch_optional(change.connection())
    .await?;
    let Some(replaced) = replaced else { return Ok(None) };
    if !terms.enabled {
        deliveries::give_up(change, uuid_of_endpoint(id)).await?;
    }
    endpoint(&replaced).map(Some)
}

pub async fn delete(store: &PgStore, tenant: &str, id: EndpointId) -> Result<bool, StoreError> {
    let mut loan = store.lend().await?;
    // The deliveries go with it, by their foreign key.
    let deleted = sqlx::query("DELETE FROM webhook_endpoints WHERE id = $1 AND tenant_id = $2")
        .bind(uuid_of_endpoint(id))
        .bind(tenant)
        .execute(&mut *loan)
        .await?;
    loan.give_back();
    Ok(deleted.rows_affected() > 0)
}

pub async fn rotate(
    store: &PgStore,
    tenant: &str,
    id: EndpointId,
    secret: &SigningSecret,
    overlap: Duration,
) -> Result<Option<Endpoint>, StoreError> {
    let mut loan = store.lend().await?;
    // A second try of this call must not push out the old secret by the new one.
    let rotated = sqlx::query(concat!(
        "UPDATE webhook_endpoints
         SET old_secret = CASE WHEN secret = $3 THEN old_secret ELSE secret END,
             old_secret_until = statement_timestamp() + $4, secret = $3, updated_at = statement_timestamp()
         WHERE id = $1 AND tenant_id = $2
         RETURNING ",
        columns!()
    ))
    .bind(uuid_of_endpoint(id))
    .bind(tenant)
    .bind(secret.reveal())
    .bind(row::interval(overlap))
    .fetch_optional(&mut *loan)
    .await?;
    loan.give_back();
    rotated.as_ref().map(endpoint).transpose()
}

fn endpoint(row: &PgRow) -> Result<Endpoint, StoreError> {
    let Json(events) = row.try_get("events")?;
    let terms = EndpointTerms {
        url: row.try_get("url")?,
        events,
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
