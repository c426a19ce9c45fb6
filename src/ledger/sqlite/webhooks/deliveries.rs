//! The log of deliveries, and what their receivers' owners do with it.

use sqlx::{QueryBuilder, Row, Sqlite, sqlite::SqliteRow};

use crate::generation::{DeliveryId, EndpointId, EventKind, GenerationId};
use crate::ledger::{Delivery, DeliveryPage, DeliveryState, StoreError};

use super::{bytes, moment, unreadable};
use crate::ledger::sqlite::{SqliteStore, change::Change};

pub async fn list(
    store: &SqliteStore,
    endpoint: EndpointId,
    limit: usize,
    after: Option<DeliveryId>,
) -> Result<DeliveryPage, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT * FROM webhook_deliveries WHERE endpoint_id = ");
    sql.push_bind(endpoint.as_bytes().to_vec());
    if let Some(after) = after {
        sql.push(" AND id < ").push_bind(after.as_bytes().to_vec());
    }
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1));
    let rows = sql.build().fetch_all(&store.readers).await?;
    let deliveries = rows.iter().take(limit).map(delivery).collect::<Result<_, _>>()?;
    Ok(DeliveryPage { deliveries, has_more: rows.len() > limit })
}

pub async fn retry(
    store: &SqliteStore,
    tenant: &str,
    endpoint: EndpointId,
    id: DeliveryId,
) -> Result<Option<Delivery>, StoreError> {
    let mut change = Change::begin(store).await?;
    let now = change.now;
    // What a try under way comes to must not count for the one that was asked for.
    let due = sqlx::query(
        "UPDATE webhook_deliveries
         SET state = 'pending', attempts = 0, fence = fence + 1, due_at = ?1, ended_at = NULL, expires_at = NULL
         WHERE id = ?2 AND endpoint_id = (SELECT id FROM webhook_endpoints WHERE id = ?3 AND tenant_id = ?4)
         RETURNING *",
    )
    .bind(now)
    .bind(&id.as_bytes()[..])
    .bind(&endpoint.as_bytes()[..])
    .bind(tenant)
    .fetch_optional(change.connection())
    .await?;
    let due = due.as_ref().map(delivery).transpose()?;
    change.commit().await?;
    Ok(due)
}

/// Ends everything that is pending for an endpoint which is disabled.
pub async fn give_up(change: &mut Change, endpoint: EndpointId) -> Result<(), StoreError> {
    let (now, expires) = (change.now, change.expiry());
    sqlx::query(
        "UPDATE webhook_deliveries
         SET state = 'dead', last_error = 'the endpoint is disabled', ended_at = ?, expires_at = ?
         WHERE endpoint_id = ? AND state = 'pending'",
    )
    .bind(now)
    .bind(expires)
    .bind(&endpoint.as_bytes()[..])
    .execute(change.connection())
    .await?;
    Ok(())
}

fn delivery(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let (kind, state): (&str, &str) = (row.try_get("kind")?, row.try_get("state")?);
    let state = DeliveryState::parse(state).ok_or_else(|| unreadable("a delivery's state"))?;
    Ok(Delivery {
        id: DeliveryId::from_bytes(bytes(row, "id")?),
        generation: GenerationId::from_bytes(bytes(row, "generation_id")?),
        kind: EventKind::parse(kind).ok_or_else(|| unreadable("a delivery's kind"))?,
        state,
        attempts: row.try_get("attempts")?,
        last_status: row.try_get("last_status")?,
        last_error: row.try_get("last_error")?,
        last_at: moment(row, "last_at")?,
        due_at: moment(row, "due_at")?.filter(|_| state == DeliveryState::Pending),
        created_at: moment(row, "created_at")?.ok_or_else(|| unreadable("a delivery's created_at"))?,
        ended_at: moment(row, "ended_at")?,
    })
}
