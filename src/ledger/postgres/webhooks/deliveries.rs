//! The log of deliveries, and what their receivers' owners do with it.

use sqlx::{Row, postgres::PgRow, types::Uuid};

use crate::generation::{DeliveryId, EndpointId, EventKind, GenerationId};
use crate::ledger::{Delivery, DeliveryPage, DeliveryState, StoreError};

use super::{bytes, moment, unreadable, uuid_of_delivery, uuid_of_endpoint};
use crate::ledger::postgres::{PgStore, change::Change, row};

/// What [`delivery`] reads.
macro_rules! columns {
    () => {
        "id, generation_id, kind, state, attempts, last_status, last_error, last_at, due_at, created_at, ended_at"
    };
}

pub async fn list(
    store: &PgStore,
    endpoint: EndpointId,
    limit: usize,
    after: Option<DeliveryId>,
) -> Result<DeliveryPage, StoreError> {
    let mut loan = store.lend().await?;
    let page = match after {
        Some(_) => concat!(
            "SELECT ",
            columns!(),
            " FROM webhook_deliveries WHERE endpoint_id = $1 AND id < $3 ORDER BY id DESC LIMIT $2"
        ),
        None => {
            concat!("SELECT ", columns!(), " FROM webhook_deliveries WHERE endpoint_id = $1 ORDER BY id DESC LIMIT $2")
        }
    };
    let mut page =
        sqlx::query(page).bind(uuid_of_endpoint(endpoint)).bind(i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1);
    if let Some(after) = after {
        page = page.bind(uuid_of_delivery(after));
    }
    let rows = page.fetch_all(&mut *loan).await?;
    loan.give_back();
    let deliveries = rows.iter().take(limit).map(delivery).collect::<Result<_, _>>()?;
    Ok(DeliveryPage { deliveries, has_more: rows.len() > limit })
}

pub async fn retry(
    store: &PgStore,
    tenant: &str,
    endpoint: EndpointId,
    id: DeliveryId,
) -> Result<Option<Delivery>, StoreError> {
    let mut loan = store.lend().await?;
    // What a try under way comes to must not count for the one that was asked for.
    let due = sqlx::query(concat!(
        "UPDATE webhook_deliveries
         SET state = 'pending', attempts = 0, fence = fence + 1, due_at = statement_timestamp(), ended_at = NULL,
             expires_at = NULL
         WHERE id = $1 AND endpoint_id = (SELECT id FROM webhook_endpoints WHERE id = $2 AND tenant_id = $3)
         RETURNING ",
        columns!()
    ))
    .bind(uuid_of_delivery(id))
    .bind(uuid_of_endpoint(endpoint))
    .bind(tenant)
    .fetch_optional(&mut *loan)
    .await?;
    loan.give_back();
    due.as_ref().map(delivery).transpose()
}

/// Ends everything that is pending for an endpoint which is disabled.
pub async fn give_up(change: &mut Change, endpoint: Uuid) -> Result<(), StoreError> {
    let kept = row::interval(change.retention());
    sqlx::query(
        "UPDATE webhook_deliveries
         SET state = 'dead', last_error = 'the endpoint is disabled', ended_at = statement_timestamp(),
             expires_at = statement_timestamp() + $2
         WHERE id = ANY(ARRAY(
             SELECT id FROM webhook_deliveries WHERE endpoint_id = $1 AND state = 'pending' ORDER BY id FOR UPDATE))",
    )
    .bind(endpoint)
    .bind(kept)
    .execute(change.connection())
    .await?;
    Ok(())
}

pub async fn backlog(store: &PgStore) -> Result<usize, StoreError> {
    let mut loan = store.lend().await?;
    let pending = sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'");
    let pending = pending.fetch_one(&mut *loan).await?;
    loan.give_back();
    Ok(row::size(pending))
}

pub async fn purge(store: &PgStore) -> Result<(), StoreError> {
    let mut loan = store.lend().await?;
    sqlx::query(
        "DELETE FROM webhook_deliveries
         WHERE id = ANY(ARRAY(
             SELECT id FROM webhook_deliveries WHERE expires_at <= statement_timestamp() FOR UPDATE SKIP LOCKED))",
    )
    .execute(&mut *loan)
    .await?;
    loan.give_back();
    Ok(())
}

fn delivery(row: &PgRow) -> Result<Delivery, StoreError> {
    let (kind, state): (&str, &str) = (row.try_get("kind")?, row.try_get("state")?);
    let state = DeliveryState::parse(state).ok_or_else(|| unreadable("a delivery's state"))?;
    let last_status = row.try_get::<Option<i32>, _>("last_status")?;
    Ok(Delivery {
        id: DeliveryId::from_bytes(bytes(row, "id")?),
        generation: GenerationId::from_bytes(bytes(row, "generation_id")?),
        kind: EventKind::parse(kind).ok_or_else(|| unreadable("a delivery's kind"))?,
        state,
        attempts: row.try_get::<i32, _>("attempts")?.unsigned_abs(),
        last_status: last_status.and_then(|status| u16::try_from(status).ok()),
        last_error: row.try_get("last_error")?,
        last_at: moment(row, "last_at")?,
        due_at: moment(row, "due_at")?.filter(|_| state == DeliveryState::Pending),
        created_at: moment(row, "created_at")?.ok_or_else(|| unreadable("a delivery's created_at"))?,
        ended_at: moment(row, "ended_at")?,
    })
}
